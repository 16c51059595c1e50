"""Counts: how many rows a tenant has, kept in the transactions that change it."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import insert_or_add
from influencerai.store.schema import counts

Key = tuple[str, str, str, str]


class Counts:
    """Changes are gathered and written once, in the order of their keys, so that transactions cannot deadlock."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._changes: Counter[Key] = Counter()

    def add(self, tenant: str, noun: str, first: str, second: str, by: int) -> None:
        """Rows of `noun` whose filtered columns are (`first`, `second`) become `by` more."""
        self._changes[tenant, noun, first, second] += by

    async def total(self, tenant: str, noun: str, *, first: str | None = None, second: str | None = None) -> int:
        """Rows of `noun`, all or those with the given columns, as this transaction sees them."""
        query = select(func.coalesce(func.sum(counts.c.count), 0)).where(
            counts.c.tenant_id == tenant, counts.c.noun == noun
        )
        if first is not None:
            query = query.where(counts.c.first == first)
        if second is not None:
            query = query.where(counts.c.second == second)
        written = int((await self._connection.execute(query)).scalar_one())
        wanted = (tenant, noun, first, second)
        return written + sum(
            by
            for key, by in self._changes.items()
            if all(want in (None, have) for want, have in zip(wanted, key, strict=True))
        )

    async def overall(self, noun: str) -> dict[str, int]:
        """Rows of `noun` of all tenants, by the first of their filtered columns."""
        query = select(counts.c.first, func.sum(counts.c.count)).where(counts.c.noun == noun).group_by(counts.c.first)
        return {first: int(count) for first, count in await self._connection.execute(query)}

    async def flush(self) -> None:
        """Write the gathered changes."""
        names = ("tenant_id", "noun", "first", "second")
        rows = [dict(zip(names, key, strict=True)) | {"count": by} for key, by in sorted(self._changes.items()) if by]
        if rows:
            await self._connection.execute(insert_or_add(self._connection, counts, "count"), rows)
        self._changes.clear()
