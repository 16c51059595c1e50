"""Request counts: how many requests a tenant has sent in a minute, over all servers of the database."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import insert_or_change, now
from influencerai.store.schema import request_counts

WINDOW_MS = 60_000


@dataclass(frozen=True, kw_only=True)
class RequestCount:
    """A window that has begun, after requests were added to it."""

    before: int
    """Requests that were counted before these."""
    milliseconds_left: int
    """Until the next window may begin."""


class RequestCounts:
    """Rows of `request_counts`: one for each tenant and kind of request, used again for every window."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, tenant: str, kind: str, count: int) -> RequestCount:
        """Count so many requests; the first one after a window has passed begins the next."""
        table = request_counts
        is_over = table.c.started_at <= now() - WINDOW_MS
        statement = insert_or_change(
            self._connection,
            table,
            lambda new: {
                "count": case((is_over, new.count), else_=table.c.count + new.count),
                "started_at": case((is_over, new.started_at), else_=table.c.started_at),
            },
        ).returning(table.c.count.label("total"), (table.c.started_at + WINDOW_MS - now()).label("left"))
        values = {"tenant_id": tenant, "kind": kind, "count": count, "started_at": now()}
        row = (await self._connection.execute(statement.values(values))).one()
        return RequestCount(before=row.total - count, milliseconds_left=min(WINDOW_MS, max(0, row.left)))
