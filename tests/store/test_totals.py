"""Totals, filters and states after any sequence of operations, compared with a plain model."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule, run_state_machine_as_test

from influencerai.domain.dataset import DatasetQuery
from influencerai.domain.job import JobQuery
from influencerai.domain.lora_config_record import LoraConfigQuery
from influencerai.errors import ConflictError, FencedOffError, InUseError, NotFoundError
from influencerai.store import Store
from influencerai.store.queue import Lease
from tests.databases import KINDS, Databases, Kind
from tests.store.rows import (
    ANN,
    BOB,
    add_config,
    add_dataset,
    add_job,
    cancel,
    check_counts,
    claim,
    finish,
    report,
    requeue,
)

TENANTS = st.sampled_from([ANN, BOB])
STATUSES = ("pending", "running", "completed", "failed")
TERMINAL = ("completed", "failed")


@dataclass
class ModelJob:
    """What the plain model knows of a job."""

    tenant: str
    dataset: str | None
    config: str | None
    status: str = "pending"
    cancelled: bool = False
    owner: str | None = None
    attempts: int = 0
    returns: Counter[str] = field(default_factory=Counter)

    def end(self, status: str, *, cancelled: bool = False) -> None:
        self.status, self.cancelled, self.owner = status, cancelled, None


class StoreMachine(RuleBasedStateMachine):
    """Two tenants do all that they can; rows of one are also tried by the other."""

    kind: ClassVar[Kind]
    runner: ClassVar[asyncio.Runner]
    databases: ClassVar[Databases]

    datasets = Bundle("datasets")
    configs = Bundle("configs")
    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.place = self.databases.new(self.kind)
        self.store = Store(self.place)
        self.model_datasets: dict[str, tuple[str, str, str]] = {}
        self.model_configs: dict[str, tuple[str, str, bool]] = {}
        self.model_jobs: dict[str, ModelJob] = {}
        self.cancel_requested: set[str] = set()

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self._check())
        self.run(check_counts(self.store))
        self.run(self.store.database.close())
        self.databases.give_back(self.place)

    @rule(
        target=datasets,
        tenant=TENANTS,
        status=st.sampled_from(["ready", "failed"]),
        kind=st.sampled_from(["lora-training", "fine-tuning"]),
    )
    def make_dataset(self, tenant: str, status: Any, kind: str) -> str:
        made = self.run(add_dataset(self.store, tenant, status=status, kind=kind))
        self.model_datasets[made.id] = (tenant, status, kind)
        return str(made.id)

    @rule(tenant=TENANTS, id=datasets, status=st.sampled_from(["ready", "failed"]))
    def set_status(self, tenant: str, id: str, status: str) -> None:
        async def edit() -> Any:
            async with self.store.write() as transaction:
                return await transaction.datasets.edit(tenant, id, lambda _: {"status": status})

        owner, _, kind = self.model_datasets.get(id, (None, "", ""))
        assert (self.run(edit()) is not None) == (owner == tenant)
        if owner == tenant:
            self.model_datasets[id] = (tenant, status, kind)

    @rule(tenant=TENANTS, id=datasets)
    def remove_dataset(self, tenant: str, id: str) -> None:
        async def remove() -> bool:
            async with self.store.write() as transaction:
                return await transaction.datasets.remove(tenant, id)

        users = [job for job in self.model_jobs.values() if job.dataset == id and job.status not in TERMINAL]
        mine = self.model_datasets.get(id, (None,))[0] == tenant
        if mine and users:
            with pytest.raises(InUseError) as raised:
                self.run(remove())
            assert raised.value.jobs == len(users)
        else:
            assert self.run(remove()) == mine
            if mine:
                del self.model_datasets[id]

    @rule(target=configs, tenant=TENANTS, name=st.sampled_from("abc"), default=st.booleans())
    def make_config(self, tenant: str, name: str, default: bool) -> str:
        taken = [id for id, (owner, found, _) in self.model_configs.items() if (owner, found) == (tenant, name)]
        if taken:
            with pytest.raises(ConflictError) as raised:
                self.run(add_config(self.store, tenant, name=name, isDefault=default))
            assert raised.value.existing_id == taken[0]
            return taken[0]
        made = self.run(add_config(self.store, tenant, name=name, isDefault=default))
        self._model_config(made.id, tenant, name, default)
        return str(made.id)

    @rule(tenant=TENANTS, id=configs, name=st.sampled_from("abcd"), default=st.booleans())
    def edit_config(self, tenant: str, id: str, name: str, default: bool) -> None:
        async def edit() -> Any:
            async with self.store.write() as transaction:
                return await transaction.lora_configs.edit(
                    tenant, id, lambda found: found.model_copy(update={"name": name, "is_default": default})
                )

        mine = self.model_configs.get(id, (None,))[0] == tenant
        taken = any(
            (owner, found) == (tenant, name) and other != id for other, (owner, found, _) in self.model_configs.items()
        )
        if mine and taken:
            with pytest.raises(ConflictError):
                self.run(edit())
        else:
            assert (self.run(edit()) is not None) == mine
            if mine:
                self._model_config(id, tenant, name, default)

    @rule(tenant=TENANTS, id=configs)
    def remove_config(self, tenant: str, id: str) -> None:
        async def remove() -> Any:
            async with self.store.write() as transaction:
                return await transaction.lora_configs.remove(tenant, id)

        users = [job for job in self.model_jobs.values() if job.config == id and job.status not in TERMINAL]
        mine = self.model_configs.get(id, (None,))[0] == tenant
        if mine and users:
            with pytest.raises(InUseError) as raised:
                self.run(remove())
            assert raised.value.jobs == len(users)
        else:
            assert (self.run(remove()) is not None) == mine
            if mine:
                del self.model_configs[id]

    @rule(target=jobs, dataset=datasets, config=configs)
    def make_job(self, dataset: str, config: str) -> str:
        tenant = self.model_datasets.get(dataset, (ANN,))[0]
        call = add_job(self.store, tenant, dataset_id=dataset, config_id=config)
        known = [self.model_datasets.get(dataset, (None,))[0], self.model_configs.get(config, (None,))[0]]
        if known != [tenant, tenant]:
            with pytest.raises(NotFoundError):
                self.run(call)
            return "none"
        made = self.run(call)
        self.model_jobs[made.job.id] = ModelJob(tenant, dataset, config)
        return str(made.job.id)

    @rule(target=leases)
    def claim_next(self) -> Lease | None:
        found = self.run(claim(self.store, running_per_tenant=2))
        running = Counter(job.tenant for job in self.model_jobs.values() if job.status == "running")
        free = [job for job in self.model_jobs.values() if job.status == "pending" and running[job.tenant] < 2]
        assert (found is not None) == bool(free)
        if found is None:
            return None
        job = self.model_jobs[found[0].job_id]
        assert any(job is item for item in free)
        job.status, job.owner = "running", found[0].token
        lease: Lease = found[0]
        return lease

    @rule(lease=leases, ending=st.sampled_from(["completed", "failed", "cancelled"]))
    def finish_lease(self, lease: Lease | None, ending: str) -> None:
        if lease is None:
            return
        job = self.model_jobs.get(lease.job_id)
        if job is None or job.owner != lease.token:
            with pytest.raises(FencedOffError):
                self.run(finish(self.store, lease, ending))
        else:
            self.run(finish(self.store, lease, ending))
            job.end("completed" if ending == "completed" else "failed", cancelled=ending == "cancelled")

    @rule(lease=consumes(leases))
    def release_lease(self, lease: Lease | None) -> None:
        if lease is None:
            return
        job = self.model_jobs.get(lease.job_id)
        if job is None or job.owner != lease.token:
            with pytest.raises(FencedOffError):
                self.run(requeue(self.store, lease, "released"))
            return
        self.run(requeue(self.store, lease, "released"))
        if lease.job_id in self.cancel_requested:
            job.end("failed", cancelled=True)
        else:
            job.status, job.owner = "pending", None

    @rule(tenant=TENANTS, id=jobs)
    def cancel_job(self, tenant: str, id: str) -> None:
        job = self.model_jobs.get(id)
        if job is None or job.tenant != tenant:
            assert self.run(cancel(self.store, id, tenant=tenant)) is None
        elif job.cancelled or id in self.cancel_requested:
            self.run(cancel(self.store, id, tenant=tenant))
        elif job.status in TERMINAL:
            with pytest.raises(ConflictError):
                self.run(cancel(self.store, id, tenant=tenant))
        else:
            self.run(cancel(self.store, id, tenant=tenant))
            if job.status == "running" and job.owner != "external":
                self.cancel_requested.add(id)
            else:
                job.end("failed", cancelled=True)

    @rule(tenant=TENANTS, id=jobs, status=st.sampled_from(STATUSES))
    def report_job(self, tenant: str, id: str, status: str) -> None:
        job = self.model_jobs.get(id)
        if job is None or job.tenant != tenant:
            assert self.run(report(self.store, id, tenant=tenant, status=status)) is None
        elif job.status in TERMINAL and status != job.status:
            with pytest.raises(ConflictError):
                self.run(report(self.store, id, tenant=tenant, status=status))
        elif job.status in TERMINAL or job.owner in (None, "external"):  # ours are refused by the caller
            self.run(report(self.store, id, tenant=tenant, status=status))
            if job.status not in TERMINAL:
                job.status, job.owner = status, "external" if status == "running" else None

    @rule(tenant=TENANTS, id=jobs)
    def remove_job(self, tenant: str, id: str) -> None:
        async def remove() -> Any:
            async with self.store.write() as transaction:
                return await transaction.jobs.remove(tenant, id, check=lambda _: None)

        job = self.model_jobs.get(id)
        mine = job is not None and job.tenant == tenant
        assert (self.run(remove()) is not None) == mine
        if mine:
            del self.model_jobs[id]

    @rule()
    def look(self) -> None:
        self.run(self._check())

    def _model_config(self, id: str, tenant: str, name: str, default: bool) -> None:
        if default:
            for other, (owner, found, _) in self.model_configs.items():
                if owner == tenant:
                    self.model_configs[other] = (owner, found, False)
        self.model_configs[id] = (tenant, name, default)

    async def _check(self) -> None:
        async with self.store.read() as transaction:
            for tenant in (ANN, BOB):
                mine = [job for job in self.model_jobs.values() if job.tenant == tenant]
                for status in (None, *STATUSES, "cancelled"):
                    expected = [
                        job
                        for job in mine
                        if status is None or (job.cancelled if status == "cancelled" else job.status == status)
                    ]
                    page = await transaction.jobs.page(tenant, JobQuery.parse({"status": status, "take": 100}))
                    assert len(page.items) == page.total == len(expected)
                assert await transaction.jobs.active(tenant) == sum(job.status not in TERMINAL for job in mine)
                for default in (None, True, False):
                    names = {
                        name
                        for owner, name, found in self.model_configs.values()
                        if owner == tenant and default in (None, found)
                    }
                    configs = await transaction.lora_configs.page(tenant, LoraConfigQuery(is_default=default))
                    assert {item.name for item in configs.items} == names
                    assert configs.total == len(names)
                datasets = await transaction.datasets.page(tenant, DatasetQuery(status="ready", take=100))
                expected_datasets = {
                    id for id, (owner, status, _) in self.model_datasets.items() if (owner, status) == (tenant, "ready")
                }
                assert {item.id for item in datasets.items} == expected_datasets
                assert datasets.total == len(expected_datasets)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_store_does_what_a_plain_model_does(databases: Databases, kind: Kind) -> None:
    with asyncio.Runner() as runner:

        class Machine(StoreMachine):
            pass

        Machine.kind, Machine.runner, Machine.databases = kind, runner, databases
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        run_state_machine_as_test(
            Machine,
            settings=settings(max_examples=5, stateful_step_count=30, deadline=None, suppress_health_check=checks),
        )
