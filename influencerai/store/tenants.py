"""Tenants: one row each, to lock."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import insert_or_keep
from influencerai.store.schema import tenants


async def lock_tenant(connection: AsyncConnection, tenant: str) -> None:
    """Until the transaction ends, nobody else decides about all that the tenant has.

    Taken before any other row's lock, so that two transactions cannot wait for each other.
    """
    lock = select(tenants.c.id).where(tenants.c.id == tenant).with_for_update()
    if (await connection.execute(lock)).first() is None:
        await connection.execute(insert_or_keep(connection, tenants), {"id": tenant})
        await connection.execute(lock)
