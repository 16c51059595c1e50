"""Tenants: one row each, to lock."""

from __future__ import annotations

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.dialect import insert_or_keep
from influencerai.store.schema import tenants

_ROW = select(tenants.c.id).where(tenants.c.id == bindparam("tenant"))


async def lock_tenant(connection: AsyncConnection, tenant: str) -> None:
    """Until the transaction ends, nobody else decides about all that the tenant has.

    Taken before any other row's lock, so that two transactions cannot wait for each other.
    """
    lock = _ROW.with_for_update()
    if (await connection.execute(lock, {"tenant": tenant})).first() is None:
        await connection.execute(insert_or_keep(connection, tenants), {"id": tenant})
        await connection.execute(lock, {"tenant": tenant})


async def try_lock_tenant(connection: AsyncConnection, tenant: str) -> bool:
    """As `lock_tenant`, or nothing where somebody else has it: for those who decide about many tenants at once."""
    lock = _ROW.with_for_update(skip_locked=True)
    if (await connection.execute(lock, {"tenant": tenant})).first() is not None:
        return True
    await connection.execute(insert_or_keep(connection, tenants), {"id": tenant})
    return (await connection.execute(lock, {"tenant": tenant})).first() is not None
