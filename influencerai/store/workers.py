"""Workers: who is there to train, for the readiness check and the operator's eyes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import insert_or_set, now
from influencerai.store.schema import workers
from influencerai.store.times import to_datetime


@dataclass(frozen=True, kw_only=True)
class WorkerSeen:
    """A worker that was there a moment ago."""

    id: str
    node: str
    job_id: str | None
    seen_at: datetime


class Workers:
    """Rows of `workers`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def greet(self, id: str, *, node: str, job_id: str | None = None) -> None:
        """Record that a worker was seen now, and the job that it trains."""
        statement = insert_or_set(self._connection, workers, "seen_at", "job_id")
        row = {"id": id, "node": node, "job_id": job_id, "started_at": now(), "seen_at": now()}
        await self._connection.execute(statement.values(**row))

    async def leave(self, id: str) -> None:
        """Forget a worker that ends."""
        await self._connection.execute(delete(workers).where(workers.c.id == id))

    async def seen(self, *, within_seconds: float) -> list[WorkerSeen]:
        """Workers that were there in the last seconds; older ones are gone without a word."""
        statement = select(workers).where(workers.c.seen_at >= now() - round(within_seconds * 1000))
        return [
            WorkerSeen(id=row.id, node=row.node, job_id=row.job_id, seen_at=to_datetime(row.seen_at))
            for row in await self._connection.execute(statement.order_by(workers.c.id))
        ]

    async def forget(self, *, unseen_seconds: float) -> None:
        """Drop the rows of workers that have not been seen for long."""
        await self._connection.execute(delete(workers).where(workers.c.seen_at < now() - round(unseen_seconds * 1000)))
