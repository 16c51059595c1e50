"""Quotas: limits of single tenants, which win over the settings'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.usage import QuotaName
from influencerai.store.dialect import insert_or_set
from influencerai.store.schema import quotas


class Quotas:
    """Rows of `quotas`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, tenant: str) -> dict[QuotaName, float | None]:
        """The tenant's own limits by name; None is no limit, an absent name means the setting."""
        statement = select(quotas.c.name, quotas.c.value).where(quotas.c.tenant_id == tenant)
        return {cast(QuotaName, name): value for name, value in await self._connection.execute(statement)}

    async def change(self, tenant: str, changes: Mapping[QuotaName, float | str | None]) -> None:
        """Set limits; "default" removes one."""
        for name, value in sorted(changes.items()):
            if value == "default":
                mine = (quotas.c.tenant_id == tenant) & (quotas.c.name == name)
                await self._connection.execute(delete(quotas).where(mine))
            else:
                row = {"tenant_id": tenant, "name": name, "value": value}
                await self._connection.execute(insert_or_set(self._connection, quotas, "value").values(row))
