"""Short ways to fill a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.dataset import Dataset, DatasetDraft, DatasetStatus
from influencerai.domain.job_snapshot import JobSnapshot
from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.lora_config_record import LoraConfigRecord
from influencerai.domain.problem import Problem
from influencerai.store import Store, Transaction
from influencerai.store.job_rows import NewJob, StoredJob
from influencerai.store.pending_jobs import ClaimRules
from influencerai.store.queue import Lease, Report
from influencerai.store.requeue import RetryRules
from influencerai.store.schema import counts, datasets, jobs, lora_configs

ANN, BOB = "ann", "bob"
RETRIES = RetryRules(lost=2, broken=1, seconds=1)
_NOUNS_OF_ROWS = ("dataset", "lora_config", "job")
"""Nouns of `counts` that say how many rows there are; the others add up what was, also of jobs that are gone."""
PROGRESS = {"currentEpoch": 0, "totalEpochs": 3}


def rules(*, seconds: float = 60, running_per_tenant: int = 100, dataset_wait_seconds: float = 600) -> ClaimRules:
    return ClaimRules(seconds=seconds, running_per_tenant=running_per_tenant, dataset_wait_seconds=dataset_wait_seconds)


async def ids_waiting(
    transaction: Transaction, obeyed: ClaimRules | None = None, *, per_tenant: int, without: Collection[str] = ()
) -> dict[str, list[str]]:
    """Ids of each tenant's first pending jobs."""
    found = await transaction.pending_jobs.waiting(obeyed or rules(), per_tenant=per_tenant, without=without)
    return {tenant: [job.id for job in jobs] for tenant, jobs in found.items()}


def lora_config(name: str = "face", **fields: Any) -> LoraConfig:
    return LoraConfig.parse({"name": name, "modelName": "sd15", **fields})


async def add_dataset(
    store: Store,
    tenant: str = ANN,
    *,
    status: DatasetStatus = "ready",
    path: str = "data/faces",
    meta: Mapping[str, Any] | None = None,
    kind: str = "lora-training",
) -> Dataset:
    draft = DatasetDraft.parse({"kind": kind, "path": path, "meta": dict(meta or {})})
    async with store.write() as transaction:
        return await transaction.datasets.add(tenant, draft, status=status, report=None)


async def add_config(store: Store, tenant: str = ANN, *, name: str = "face", **fields: Any) -> LoraConfigRecord:
    async with store.write() as transaction:
        return await transaction.lora_configs.add(tenant, lora_config(name, **fields))


def job_snapshot(*, dataset_id: str | None = None, path: str = "data/faces", **config: Any) -> JobSnapshot:
    fields = {"name": "face", "modelName": "sd15", "epochs": 3, **config}
    return JobSnapshot.restore({"config": fields, "dataset": {"id": dataset_id or "gone", "path": path}})


def new_job(
    *,
    dataset_id: str | None = None,
    config_id: str | None = None,
    priority: int = 5,
    output_dir: str = "data/loras/face",
    **fields: Any,
) -> NewJob:
    return NewJob(
        **{
            "type": "lora-training",
            "payload": {"datasetId": dataset_id},
            "snapshot": job_snapshot(dataset_id=dataset_id),
            "dataset_id": dataset_id,
            "config_id": config_id,
            "priority": priority,
            "output_dir": output_dir,
            **fields,
        }
    )


async def add_job(store: Store, tenant: str = ANN, **fields: Any) -> StoredJob:
    async with store.write() as transaction:
        return await transaction.jobs.add(tenant, new_job(**fields))


async def claim(store: Store, **changes: Any) -> tuple[Lease, StoredJob] | None:
    async with store.write() as transaction:
        return await transaction.queue.claim(node="node-1", rules=rules(**changes))


async def claimed(store: Store, **changes: Any) -> Lease:
    found = await claim(store, **changes)
    assert found is not None
    return found[0]


async def stored(store: Store, id: str, tenant: str = ANN) -> StoredJob:
    async with store.read() as transaction:
        found = await transaction.jobs.stored(tenant, id)
    assert found is not None
    return found


async def report(store: Store, id: str, *, tenant: str = ANN, seconds: float = 60, **said: Any) -> StoredJob | None:
    async with store.write() as transaction:
        return await transaction.queue.report(tenant, id, lambda _: Report(**said), seconds=seconds)


async def cancel(store: Store, id: str, *, tenant: str = ANN) -> StoredJob | None:
    async with store.write() as transaction:
        return await transaction.queue.cancel(tenant, id, lambda _: True)


async def finish(store: Store, lease: Lease, ending: Any = "completed", **fields: Any) -> None:
    async with store.write() as transaction:
        await transaction.queue.finish(lease, ending=ending, result={"loraPath": "x"}, **fields)


async def requeue(store: Store, lease: Lease, how: Any, *, error: str | None = None) -> None:
    async with store.write() as transaction:
        problem = None if error is None else Problem(error, "test")
        await transaction.queue.requeue(lease, how, problem=problem, retries=RETRIES)


async def rescue(store: Store) -> int:
    async with store.write() as transaction:
        return await transaction.queue.rescue(retries=RETRIES)


async def events_of(store: Store, id: str) -> list[tuple[int, str, Mapping[str, Any]]]:
    async with store.read() as transaction:
        return [(event.seq, event.type, event.data) for event in await transaction.events.after(id, 0, limit=10_000)]


async def counted_rows(connection: AsyncConnection) -> dict[tuple[str, str, str, str], int]:
    """What the table of counts should say, counted from the rows."""
    found: dict[tuple[str, str, str, str], int] = {}
    for tenant, status, kind, count in await connection.execute(
        select(datasets.c.tenant_id, datasets.c.status, datasets.c.kind, func.count()).group_by(
            datasets.c.tenant_id, datasets.c.status, datasets.c.kind
        )
    ):
        found[tenant, "dataset", status, kind] = count
    for tenant, default, model, count in await connection.execute(
        select(lora_configs.c.tenant_id, lora_configs.c.is_default, lora_configs.c.model_name, func.count()).group_by(
            lora_configs.c.tenant_id, lora_configs.c.is_default, lora_configs.c.model_name
        )
    ):
        found[tenant, "lora_config", str(default), model] = count
    for tenant, status, cancelled, type, count in await connection.execute(
        select(jobs.c.tenant_id, jobs.c.status, jobs.c.cancelled, jobs.c.type, func.count()).group_by(
            jobs.c.tenant_id, jobs.c.status, jobs.c.cancelled, jobs.c.type
        )
    ):
        found[tenant, "job", "cancelled" if cancelled else status, type] = count
    return found


async def check_counts(store: Store) -> None:
    """The table of counts says what the rows say."""
    async with store.database.read() as connection:
        rows = await connection.execute(
            select(*counts.c).where(counts.c["count"] != 0, counts.c.noun.in_(_NOUNS_OF_ROWS))
        )
        written = {(tenant, noun, first, second): count for tenant, noun, first, second, count in rows}
        assert written == await counted_rows(connection)
