"""The LoRA configs of a tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.lora_config_record import LoraConfigQuery, LoraConfigRecord
from influencerai.domain.page import Page
from influencerai.domain.wire import STORED
from influencerai.errors import ConflictError
from influencerai.store.counts import Counts
from influencerai.store.dialect import now
from influencerai.store.ids import can_be_id, new_id
from influencerai.store.paging import converted, page_of
from influencerai.store.schema import jobs, lora_configs
from influencerai.store.tenants import lock_tenant
from influencerai.store.times import to_datetime
from influencerai.store.users import refuse_used

_SORT = {
    "createdAt": lora_configs.c.created_at,
    "updatedAt": lora_configs.c.updated_at,
    "name": lora_configs.c.name,
}


class LoraConfigs:
    """Rows of `lora_configs`; every method is about one tenant's."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts

    async def add(self, tenant: str, config: LoraConfig) -> LoraConfigRecord:
        """A new config; as the default it takes the place of the one before.

        Raises:
            ConflictError: the name is taken.
        """
        await lock_tenant(self._connection, tenant)
        await self._refuse_taken(tenant, config.name)
        if config.is_default:
            await self._unset_default(tenant)
        values = {"id": new_id(), "tenant_id": tenant, "created_at": now(), **_columns(config)}
        row = (await self._connection.execute(insert(lora_configs).values(values).returning(lora_configs))).one()
        self._count(row, 1)
        return _record(row)

    async def get(self, tenant: str, id: str) -> LoraConfigRecord | None:
        """One config, or None."""
        row = await self._row(tenant, lora_configs.c.id == id) if can_be_id(id) else None
        return None if row is None else _record(row)

    async def default(self, tenant: str) -> LoraConfigRecord | None:
        """The tenant's default config."""
        row = await self._row(tenant, lora_configs.c.is_default)
        return None if row is None else _record(row)

    async def page(self, tenant: str, query: LoraConfigQuery) -> Page[LoraConfigRecord]:
        """A slice of the tenant's configs."""
        statement: Select[Any] = select(lora_configs).where(lora_configs.c.tenant_id == tenant)
        if query.is_default is not None:
            statement = statement.where(lora_configs.c.is_default.is_(query.is_default))
        if query.model_name is not None:
            statement = statement.where(lora_configs.c.model_name == query.model_name)
        rows = await page_of(self._connection, statement, query, sort=_SORT[query.sort_by], id=lora_configs.c.id)
        first = None if query.is_default is None else str(query.is_default)
        total = await self._counts.total(tenant, "lora_config", first=first, second=query.model_name)
        return Page(items=await converted(rows, _record), total=total, take=query.take, skip=query.skip)

    async def edit(self, tenant: str, id: str, change: Callable[[LoraConfig], LoraConfig]) -> LoraConfigRecord | None:
        """Put what `change` makes of a config in its place; whatever `change` raises leaves it as it is.

        Raises:
            ConflictError: the name is another config's.
        """
        await lock_tenant(self._connection, tenant)
        before = await self._row(tenant, lora_configs.c.id == id, lock=True)
        if before is None:
            return None
        config = change(_record(before).config)
        if config.name != before.name:
            await self._refuse_taken(tenant, config.name)
        if config.is_default and not before.is_default:
            await self._unset_default(tenant)
        statement = update(lora_configs).where(lora_configs.c.id == id).values(_columns(config))
        row = (await self._connection.execute(statement.returning(lora_configs))).one()
        self._count(before, -1)
        self._count(row, 1)
        return _record(row)

    async def remove(self, tenant: str, id: str) -> LoraConfigRecord | None:
        """Delete one config and return what it was.

        Raises:
            InUseError: active jobs use it.
        """
        await lock_tenant(self._connection, tenant)
        row = await self._row(tenant, lora_configs.c.id == id, lock=True)
        if row is None:
            return None
        await refuse_used(self._connection, jobs.c.active_config_id == id)
        await self._connection.execute(delete(lora_configs).where(lora_configs.c.id == id))
        self._count(row, -1)
        return _record(row)

    async def _refuse_taken(self, tenant: str, name: str) -> None:
        """Called with the tenant locked; the table's constraint holds against everything else."""
        taken = await self._row(tenant, lora_configs.c.name == name)
        if taken is not None:
            raise ConflictError(f"LoRA config with name '{name}' already exists", existing_id=str(taken.id))

    async def _unset_default(self, tenant: str) -> None:
        row = await self._row(tenant, lora_configs.c.is_default, lock=True)
        if row is None:
            return
        values = _columns(_record(row).config.model_copy(update={"is_default": False}))
        await self._connection.execute(update(lora_configs).where(lora_configs.c.id == row.id).values(values))
        self._count(row, -1)
        self._counts.add(row.tenant_id, "lora_config", "False", row.model_name, 1)

    async def _row(self, tenant: str, where: Any, *, lock: bool = False) -> Row[Any] | None:
        statement = select(lora_configs).where(lora_configs.c.tenant_id == tenant, where)
        if lock:
            statement = statement.with_for_update()
        return (await self._connection.execute(statement)).one_or_none()

    def _count(self, row: Row[Any], by: int) -> None:
        self._counts.add(row.tenant_id, "lora_config", str(row.is_default), row.model_name, by)


def _columns(config: LoraConfig) -> dict[str, Any]:
    return {
        "name": config.name,
        "model_name": config.model_name,
        "is_default": config.is_default,
        "document": config.model_dump(mode="json", by_alias=True, include=set(LoraConfig.model_fields)),
        "updated_at": now(),
    }


def _record(row: Row[Any]) -> LoraConfigRecord:
    return LoraConfigRecord.model_validate(
        {
            **row.document,
            "id": row.id,
            "tenantId": row.tenant_id,
            "createdAt": to_datetime(row.created_at),
            "updatedAt": to_datetime(row.updated_at),
        },
        context=STORED,
    )
