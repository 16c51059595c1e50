"""Reservations: bytes that uploads under way may write, apart from those that were measured on the disk."""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import insert_or_set, now
from influencerai.store.schema import reservations


class Reservations:
    """Rows of `reservations`. One whose server has died counts no more when it has expired."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def total(self, tenant: str) -> int:
        """Bytes that the tenant's uploads have reserved."""
        held = (reservations.c.tenant_id == tenant) & (reservations.c.expires_at > now())
        statement = select(func.coalesce(func.sum(reservations.c.bytes), 0)).where(held)
        return int((await self._connection.execute(statement)).scalar_one())

    async def hold(self, id: str, tenant: str, *, size: int, seconds: float) -> None:
        """Reserve `size` bytes for the next `seconds`, or keep them reserved for so long again."""
        row = {"id": id, "tenant_id": tenant, "bytes": size, "expires_at": now() + round(seconds * 1000)}
        statement = insert_or_set(self._connection, reservations, "bytes", "expires_at")
        await self._connection.execute(statement.values(row))

    async def release(self, id: str) -> None:
        """Give a reservation back, and forget those that have expired."""
        gone = (reservations.c.id == id) | (reservations.c.expires_at <= now())
        await self._connection.execute(delete(reservations).where(gone))
