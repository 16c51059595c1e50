"""Whose turn it is: the pending job that a claim takes next, and why the others wait.

Tenants take turns: the one served least recently goes first, with its job of the highest priority, then the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, Row, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.settings import Settings
from influencerai.store.dialect import now, take_turn
from influencerai.store.schema import datasets, jobs, tenants
from influencerai.store.tenants import lock_tenant

_CANDIDATES = 20
# Written out, since SQLite chooses an index of some rows only where it sees that they are meant.
_PENDING = jobs.c.status == literal_column("'pending'")
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

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            seconds=settings.lease_seconds,
            running_per_tenant=settings.running_jobs_per_tenant,
            dataset_wait_seconds=settings.dataset_wait_seconds,
        )


class Turns:
    """Pending jobs of all tenants, in the order in which they are claimed."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def has_work(self, rules: ClaimRules) -> bool:
        """Whether a claim, or taking back lost jobs, would find something; a look that locks nothing."""
        expired = select(jobs.c.id).where(jobs.c.status == "running", jobs.c.lease_expires_at < now()).limit(1)
        if (await self._connection.execute(expired)).first() is not None:
            return True
        return bool(await self._candidates(rules))

    async def next(self, rules: ClaimRules) -> Row[Any] | None:
        """The job whose turn it is, locked, and its tenant's row too.

        One claim at a time counts who runs how much. The tenant goes before the job, as in every transaction, and the
        job is never waited for: so nothing waits in a circle.
        """
        await take_turn(self._connection, "claim")
        for id, tenant in await self._candidates(rules):
            await lock_tenant(self._connection, tenant)
            locked = select(jobs).where(jobs.c.id == id, _PENDING).with_for_update(skip_locked=True)
            row = (await self._connection.execute(locked)).one_or_none()
            if row is not None:
                return row
        return None

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

    async def _candidates(self, rules: ClaimRules) -> list[tuple[str, str]]:
        """(job, tenant), best first."""
        others = jobs.alias()
        running = (
            select(func.count())
            .select_from(others)
            .where(others.c.tenant_id == jobs.c.tenant_id, others.c.status == "running")
            .scalar_subquery()
        )
        turn = func.row_number().over(
            partition_by=jobs.c.tenant_id, order_by=(jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)
        )
        waited = _waited_long(rules.dataset_wait_seconds)
        eligible = (
            select(jobs.c.id, jobs.c.tenant_id, jobs.c.created_at, turn.label("turn"))
            .outerjoin(datasets, datasets.c.id == jobs.c.active_dataset_id)
            .where(
                _PENDING,
                jobs.c.not_before <= now(),
                running < rules.running_per_tenant,
                func.coalesce(datasets.c.status, "ready").not_in(_NOT_READY) | waited,
            )
            .subquery()
        )
        statement = (
            select(eligible.c.id, eligible.c.tenant_id)
            .outerjoin(tenants, tenants.c.id == eligible.c.tenant_id)
            .order_by(func.coalesce(tenants.c.served_at, 0), eligible.c.turn, eligible.c.created_at, eligible.c.id)
            .limit(_CANDIDATES)
        )
        return [(row.id, row.tenant_id) for row in await self._connection.execute(statement)]


def _waited_long(seconds: float) -> ColumnElement[bool]:
    return jobs.c.created_at < now() - round(seconds * 1000)
