"""Pending jobs: the one that a claim takes next, and why the others wait.

The tenant that has had the least device-time goes first, with its job of the highest priority, then the oldest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, Row, bindparam, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job_snapshot import JobSnapshot
from influencerai.domain.lora_config import LoraConfig
from influencerai.scheduling.fair_share import FairShareRules, TenantShare, WaitingJob, decide
from influencerai.scheduling.placement import Capacity, Node, ResourceRequest
from influencerai.scheduling.start_estimate import StartEstimate
from influencerai.settings import Settings
from influencerai.store.attempts import USAGE
from influencerai.store.dialect import now, one_of, one_of_first, take_turn
from influencerai.store.schema import counts, datasets, jobs
from influencerai.store.tenants import try_lock_tenant

_CANDIDATES = 20
_ESTIMATE_SECONDS = 5.0
"""An estimate that has moved by less is left as it is."""
_WORKER = ResourceRequest(cpus=1)
"""What a job needs of a worker of this machine: its turn."""
# Written out, since SQLite chooses an index of some rows only where it sees that they are meant.
_PENDING = jobs.c.status == literal_column("'pending'")
_BUSY = (
    select(counts.c.tenant_id)
    .where(counts.c.noun == "job", counts.c.first == "pending", counts.c["count"] > 0)
    .distinct()
    .subquery()
)
"""Tenants that have pending jobs."""
_QUEUED = jobs.alias()
_NOT_READY = ("pending", "processing")
WAITING_FOR_WORKER = "It waits for a free worker."
_WAITING_FOR_DATASET = "Its dataset is {status}; it fails when that does not change."


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """What a claim obeys."""

    seconds: float
    """Length of the lease."""
    running_per_tenant: int
    dataset_wait_seconds: float
    """How long a job waits for a dataset that is not ready."""
    tok_per_device_second: float = 0
    """What a job pays."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(
            seconds=settings.lease_seconds,
            running_per_tenant=settings.running_jobs_per_tenant,
            dataset_wait_seconds=settings.dataset_wait_seconds,
            tok_per_device_second=settings.tok_per_device_second,
        )


@dataclass(frozen=True, kw_only=True)
class PendingJob:
    """A job that waits, as far as the cluster's planner and dispatcher need to know it."""

    id: str
    tenant: str
    document: Mapping[str, Any]
    """Its snapshot as it is stored."""
    plan: Mapping[str, Any] | None

    @property
    def config(self) -> LoraConfig:
        """What it trains.

        Raises:
            ValidationError: an earlier version stored what this one cannot train.
        """
        return JobSnapshot.restore(self.document).config


class QueuedJob(NamedTuple):
    """A pending job that may run, as far as a decision needs to know it."""

    id: str
    options: str | None
    """Its resource options as JSON, once they are planned."""
    waited_seconds: float


class PendingJobs:
    """Pending jobs of all tenants, in the order in which they are claimed."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def has_work(self, rules: ClaimRules) -> bool:
        """Whether a claim, or taking back lost jobs, would find something; a look that locks nothing."""
        return await self.has_lost() or bool(await self._best(rules))

    async def has_lost(self) -> bool:
        """Whether taking back lost jobs would find some; a look that locks nothing."""
        expired = select(jobs.c.id).where(jobs.c.status == "running", jobs.c.lease_expires_at < now()).limit(1)
        return (await self._connection.execute(expired)).first() is not None

    async def next(self, rules: ClaimRules) -> Row[Any] | None:
        """The job whose turn it is, locked, and its tenant's row too.

        One claim at a time counts who runs how much. The tenant goes before the job, as in every transaction, and
        neither is waited for: so nothing waits in a circle.
        """
        await self.begin_decision()
        for job in await self._best(rules):
            row = await self.lock(job.tenant, job.id)
            if row is not None:
                return row
        return None

    async def lock(self, tenant: str, id: str) -> Row[Any] | None:
        """A pending job for this transaction alone; None where somebody else has it, or it is pending no more.

        Nothing is waited for, since whoever decides keeps all others from deciding.
        """
        if not await try_lock_tenant(self._connection, tenant):
            return None
        statement = select(jobs).where(jobs.c.id == id, _PENDING).with_for_update(skip_locked=True)
        return (await self._connection.execute(statement)).one_or_none()

    async def waiting(
        self, rules: ClaimRules, *, per_tenant: int, without: Collection[str] = ()
    ) -> dict[str, list[QueuedJob]]:
        """Each tenant's first pending jobs that may run, in its order; costs as much as there are active tenants."""
        ready = func.coalesce(datasets.c.status, "ready").not_in(_NOT_READY) | _waited_long(rules.dataset_wait_seconds)
        first = (
            select(jobs.c.id)
            .outerjoin(datasets, datasets.c.id == jobs.c.active_dataset_id)
            .where(jobs.c.tenant_id == _BUSY.c.tenant_id, _PENDING, jobs.c.not_before <= now(), ready)
            .order_by(jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)
            .limit(per_tenant)
            .correlate(_BUSY)
        )
        if without:
            first = first.where(jobs.c.id.not_in(tuple(without)))
        columns = (_QUEUED.c.id, _QUEUED.c.needs, (now() - _QUEUED.c.created_at).label("waited"))
        statement = (
            select(_BUSY.c.tenant_id, *columns)
            .join_from(_BUSY, _QUEUED, one_of_first(self._connection, _QUEUED.c.id, first))
            .order_by(_QUEUED.c.priority.desc(), _QUEUED.c.created_at, _QUEUED.c.id)
        )
        found: dict[str, list[QueuedJob]] = {}
        for tenant, id, options, waited in await self._connection.execute(statement):
            found.setdefault(tenant, []).append(QueuedJob(id, options, waited / 1000))
        return found

    async def begin_decision(self) -> None:
        """Until the transaction ends, nobody else decides who starts."""
        await take_turn(self._connection, "claim")

    async def unplanned(self, *, limit: int) -> list[PendingJob]:
        """Pending jobs of which nobody has said yet what they need, the oldest first."""
        columns = (jobs.c.id, jobs.c.tenant_id, jobs.c.snapshot, jobs.c.plan)
        statement = select(*columns).where(_PENDING, jobs.c.needs.is_(None)).order_by(jobs.c.created_at, jobs.c.id)
        return [
            PendingJob(id=row.id, tenant=row.tenant_id, document=row.snapshot, plan=row.plan)
            for row in await self._connection.execute(statement.limit(limit))
        ]

    async def set_resource_options(self, id: str, options: str) -> None:
        """Write the resource options of a job, as JSON."""
        await self._connection.execute(update(jobs).where(jobs.c.id == id, _PENDING).values(needs=options))

    async def explain(self, found: Mapping[str, StartEstimate]) -> None:
        """Write why pending jobs wait and for how long, by id."""
        columns = (jobs.c.id, jobs.c.waiting, jobs.c.queue_position, jobs.c.estimated_start)
        statement = select(*columns, now().label("now")).where(one_of(self._connection, jobs.c.id, found), _PENDING)
        changes = []
        for row in (await self._connection.execute(statement.order_by(jobs.c.id))).all():
            said = found[row.id]
            position = None if said.is_impossible else said.position
            start = None if said.seconds is None else row.now + round(said.seconds * 1000)
            moved = abs((start or 0) - (row.estimated_start or 0)) > _ESTIMATE_SECONDS * 1000
            if (row.waiting, row.queue_position) != (said.reason, position) or moved:
                values = {"waiting": said.reason, "queue_position": position, "estimated_start": start}
                changes.append({"job": row.id, **values})
        if changes:
            await self._connection.execute(update(jobs).where(jobs.c.id == bindparam("job"), _PENDING), changes)

    async def shares(self, tenants: Collection[str]) -> dict[str, TenantShare]:
        """What these tenants have had, and how many of their jobs run now."""
        running = (counts.c.noun == "job") & (counts.c.first == "running")
        statement = (
            select(counts.c.tenant_id, counts.c.noun, func.sum(counts.c["count"]))
            .where(running | (counts.c.noun == USAGE), one_of(self._connection, counts.c.tenant_id, tenants))
            .group_by(counts.c.tenant_id, counts.c.noun)
        )
        rows = await self._connection.execute(statement)
        found = {(tenant, noun): int(count) for tenant, noun, count in rows}
        return {
            tenant: TenantShare(
                virtual_time=found.get((tenant, USAGE), 0) / 1000, running=found.get((tenant, "job"), 0)
            )
            for tenant in tenants
        }

    async def explain_waiting(self, *, dataset_wait_seconds: float) -> list[tuple[str, str]]:
        """Write why pending jobs wait whose dataset is not ready; returns (tenant, dataset) of those.

        A reason that is no longer true is taken back.
        """
        waits = datasets.c.status.in_(_NOT_READY) & ~_waited_long(dataset_wait_seconds)
        reasons = [_WAITING_FOR_DATASET.format(status=status) for status in _NOT_READY]
        statement = (
            select(jobs.c.id, jobs.c.waiting, jobs.c.tenant_id, datasets.c.id.label("dataset"), datasets.c.status)
            .add_columns(waits.label("waits"))
            .join(datasets, datasets.c.id == jobs.c.active_dataset_id)
            .where(_PENDING, waits | jobs.c.waiting.in_(reasons))
        )
        found = set()
        rows = (await self._connection.execute(statement)).all()
        for row in sorted(rows, key=lambda row: str(row.id)):  # two processes lock in the same order
            if row.waits:
                found.add((row.tenant_id, row.dataset))
            reason = _WAITING_FOR_DATASET.format(status=row.status) if row.waits else WAITING_FOR_WORKER
            if row.waiting != reason:
                change = update(jobs).where(jobs.c.id == row.id, _PENDING)
                await self._connection.execute(change.values(waiting=reason))
        return sorted(found)

    async def _best(self, rules: ClaimRules) -> list[WaitingJob]:
        """The jobs that one free worker would be given, best first; more than one, since a row may be locked."""
        waiting = await self.waiting(rules, per_tenant=1)
        if not waiting:
            return []
        best = {
            tenant: [WaitingJob(id=job.id, tenant=tenant, options=(_WORKER,)) for job in queued]
            for tenant, queued in waiting.items()
        }
        slots = Capacity([Node(id="workers", name="workers", cpus=_CANDIDATES, memory_gb=0)])
        limits = FairShareRules(running_per_tenant=rules.running_per_tenant, starts=_CANDIDATES)
        return [start.job for start in decide(best, await self.shares(waiting), slots, rules=limits).starts]


def _waited_long(seconds: float) -> ColumnElement[bool]:
    return jobs.c.created_at < now() - round(seconds * 1000)
