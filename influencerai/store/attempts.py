"""Attempts: who has tried to train a job, and what its tenant pays for that in device-time.

A start is charged with what it is likely to take, so that the next decision knows of it; the end corrects that. A
tenant that comes back from idleness begins where the active one that has had the least is: nobody saves up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.planning.dispatch import EXPECTED_SECONDS
from influencerai.store.counts import Counts
from influencerai.store.dialect import now
from influencerai.store.events import append_events
from influencerai.store.schema import attempts, counts

USAGE = "device_ms"
"""The noun under which a tenant's device-time is counted."""
ACTIVE = ("pending", "running")


class Attempts:
    """Rows of `attempts`, and the tenants' device-time."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts

    async def start(self, job: Row[Any], *, node: str, devices: float) -> None:
        """The attempt that holds `job` from now on, and the event of it."""
        charged = round(EXPECTED_SECONDS * 1000 * devices)
        values = {"job_id": job.id, "fence": job.fence, "node": node, "devices": devices, "charged": charged}
        await self._connection.execute(insert(attempts).values(started_at=now(), **values))
        self._counts.add(job.tenant_id, USAGE, "", "", charged)
        data = {"status": "running", "attempt": job.fence, "node": node}
        await append_events(self._connection, job.id, [("status", data)])

    async def end(self, job: Row[Any], outcome: str, error: str | None) -> None:
        """How the attempt that held `job` ended; nothing where it has ended before."""
        statement = (
            update(attempts)
            .where(attempts.c.job_id == job.id, attempts.c.fence == job.fence, attempts.c.ended_at.is_(None))
            .values(ended_at=now(), outcome=outcome, error=error)
            .returning(attempts.c.started_at, attempts.c.ended_at, attempts.c.devices, attempts.c.charged)
        )
        row = (await self._connection.execute(statement)).one_or_none()
        if row is not None:
            used = round((row.ended_at - row.started_at) * row.devices)
            self._counts.add(job.tenant_id, USAGE, "", "", used - row.charged)

    async def usage(self, tenants: Iterable[str]) -> dict[str, int]:
        """Device-milliseconds by tenant, those of attempts that run included; none for who has had nothing."""
        mine = counts.c.tenant_id.in_(tuple(tenants))
        statement = select(counts.c.tenant_id, counts.c["count"]).where(counts.c.noun == USAGE, mine)
        return {tenant: int(used) for tenant, used in await self._connection.execute(statement)}

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
