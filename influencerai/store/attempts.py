"""Attempts: who has tried to train a job, and what its tenant pays for that in device-time.

A start is charged with what it is likely to take, so that the next decision knows of it; the end corrects that. A
tenant that comes back from idleness begins where the active one that has had the least is: nobody saves up.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.problem import Problem
from influencerai.scheduling.fair_share import EXPECTED_SECONDS
from influencerai.scheduling.placement import Allocation
from influencerai.store.counts import Counts
from influencerai.store.dialect import now
from influencerai.store.events import append_events
from influencerai.store.schema import attempts, counts, jobs
from influencerai.store.times import to_datetime

USAGE = "device_ms"
"""The noun under which a tenant's device-time is counted for its turn."""
USED = "used_ms"
"""The noun under which a tenant's device-time is counted for its quota, by the month of an attempt's end."""
_STARTED = ("", "attempt", "", "")
"""Under which all attempts that were ever started are counted, of all tenants."""
ACTIVE = ("pending", "running")
UNPAID = ("lost", "broken")
"""Outcomes that are not the user's doing."""


@dataclass(frozen=True, kw_only=True)
class ActiveAttempt:
    """An attempt that holds something of a node."""

    job_id: str
    tenant_id: str
    fence: int
    allocation: Allocation
    started_at: int
    has_begun: bool
    seconds_left: float | None
    """By its own estimate, where it has one."""


class Attempts:
    """Rows of `attempts`, and the tenants' device-time."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts

    async def start(
        self,
        job: Row[Any],
        *,
        node: str,
        devices: float = 1,
        allocation: Allocation | None = None,
        tok_per_second: float = 0,
    ) -> None:
        """The attempt that holds `job` from now on, and the event of it.

        Args:
            job: its row.
            node: where it is, for people.
            devices: how many it holds, where `allocation` is None.
            allocation: what it holds of a node of the cluster.
            tok_per_second: what the job pays for a second of a device.
        """
        if allocation is not None:
            devices = allocation.device_count
        charged = round(EXPECTED_SECONDS * 1000 * devices)
        values = {
            "job_id": job.id,
            "fence": job.fence,
            "node": node,
            "devices": devices,
            "charged": charged,
            "held": None if allocation is None else allocation.to_json(),
            "tok_per_second": tok_per_second,
        }
        await self._connection.execute(insert(attempts).values(started_at=now(), **values))
        self._counts.add(job.tenant_id, USAGE, "", "", charged)
        self._counts.add(*_STARTED, 1)
        data = {"status": "running", "attempt": job.fence, "node": node}
        await append_events(self._connection, job.id, [("status", data)])

    async def end(self, job: Row[Any], outcome: str, problem: Problem | None) -> None:
        """How the attempt that held `job` ended; nothing where it has ended before."""
        statement = (
            update(attempts)
            .where(attempts.c.job_id == job.id, attempts.c.fence == job.fence, attempts.c.ended_at.is_(None))
            .values(ended_at=now(), outcome=outcome, **_said(problem))
            .returning(attempts)
        )
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            return
        used = round((row.ended_at - row.started_at) * row.devices)
        self._counts.add(job.tenant_id, USAGE, "", "", used - row.charged)
        if outcome not in UNPAID and used > 0:
            self._counts.add(job.tenant_id, USED, f"{to_datetime(row.ended_at):%Y-%m}", "", used)
        if outcome not in UNPAID and row.tok_per_second * row.devices > 0:
            paid = math.ceil(used / 1000 * row.tok_per_second)
            cost = func.coalesce(jobs.c.cost_tok, 0) + paid
            await self._connection.execute(update(jobs).where(jobs.c.id == job.id).values(cost_tok=cost))

    async def started(self) -> int:
        """How many were ever started: while it is the same, nobody has taken anything."""
        return await self._counts.total(*_STARTED[:2])

    async def allocations(self) -> list[Allocation]:
        """What attempts hold of the cluster's nodes."""
        statement = select(attempts.c.held).where(attempts.c.ended_at.is_(None), attempts.c.held.is_not(None))
        return [Allocation.from_json(text) for text in (await self._connection.execute(statement)).scalars()]

    async def active(self) -> list[ActiveAttempt]:
        """The attempts that hold something of the cluster's nodes."""
        columns = (attempts.c.job_id, attempts.c.fence, attempts.c.held, attempts.c.started_at, attempts.c.begun_at)
        statement = (
            select(*columns, jobs.c.tenant_id, jobs.c.result)
            .join(jobs, jobs.c.id == attempts.c.job_id)
            .where(attempts.c.ended_at.is_(None), attempts.c.held.is_not(None))
            .order_by(attempts.c.job_id)
        )
        return [
            ActiveAttempt(
                job_id=row.job_id,
                tenant_id=row.tenant_id,
                fence=row.fence,
                allocation=Allocation.from_json(row.held),
                started_at=row.started_at,
                has_begun=row.begun_at is not None,
                seconds_left=_seconds_left(row.result),
            )
            for row in await self._connection.execute(statement)
        ]

    async def usual_seconds(self, *, of: int = 50) -> float | None:
        """The median length of the attempts that have completed a job lately."""
        seconds = (attempts.c.ended_at - attempts.c.started_at) / 1000.0
        statement = (
            select(seconds).where(attempts.c.outcome == "completed").order_by(attempts.c.ended_at.desc()).limit(of)
        )
        found = [float(value) for value in (await self._connection.execute(statement)).scalars()]
        return statistics.median(found) if found else None

    async def completed(self, *, seconds: float) -> list[tuple[str, str]]:
        """Tenants and ids of the jobs that were completed in the last so many seconds."""
        statement = (
            select(jobs.c.tenant_id, jobs.c.id)
            .join(attempts, attempts.c.job_id == jobs.c.id)
            .where(attempts.c.outcome == "completed", attempts.c.ended_at > now() - round(seconds * 1000))
        )
        return [(tenant, id) for tenant, id in await self._connection.execute(statement)]

    async def lift(self, tenant: str) -> None:
        """Let a tenant that was idle begin where the active one is that has had the least."""
        used = counts.alias()
        least = (
            select(func.min(func.coalesce(used.c["count"], 0)))
            .select_from(counts)
            .outerjoin(used, (used.c.tenant_id == counts.c.tenant_id) & (used.c.noun == USAGE))
            .where(counts.c.noun == "job", counts.c.first.in_(ACTIVE), counts.c["count"] > 0)
            .where(counts.c.tenant_id != tenant)
        )
        floor = (await self._connection.execute(least)).scalar_one()
        own = await self._counts.total(tenant, USAGE)
        if floor is not None and floor > own:
            self._counts.add(tenant, USAGE, "", "", int(floor) - own)


def _said(problem: Problem | None) -> dict[str, Any]:
    return {} if problem is None else problem.to_wire()


def _seconds_left(result: Mapping[str, Any] | None) -> float | None:
    progress = (result or {}).get("progress")
    seconds = progress.get("estimatedSecondsRemaining") if isinstance(progress, Mapping) else None
    return float(seconds) if isinstance(seconds, int | float) else None
