"""The datasets of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.dataset import Dataset, DatasetDraft, DatasetQuery, DatasetStatus
from influencerai.domain.page import Page
from influencerai.store.counts import Counts
from influencerai.store.dialect import now
from influencerai.store.ids import can_be_id, new_id
from influencerai.store.paging import converted, page_of
from influencerai.store.schema import datasets, jobs
from influencerai.store.times import to_datetime
from influencerai.store.users import refuse_used

_SORT = {"createdAt": datasets.c.created_at, "updatedAt": datasets.c.updated_at}
_SHOWN = [column for column in datasets.c if column.name != "report"]
"""Columns of a list of datasets, without the report, which is long."""


class Datasets:
    """Rows of `datasets`; every method is about one tenant's."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts

    async def add(
        self, tenant: str, draft: DatasetDraft, *, status: DatasetStatus, report: Mapping[str, Any] | None
    ) -> Dataset:
        """A new dataset."""
        values = {
            "id": new_id(),
            "tenant_id": tenant,
            "kind": draft.kind,
            "path": draft.path,
            "status": status,
            "meta": draft.meta,
            "report": report,
            "created_at": now(),
            "updated_at": now(),
        }
        row = (await self._connection.execute(insert(datasets).values(values).returning(datasets))).one()
        self._counts.add(tenant, "dataset", status, draft.kind, 1)
        return _dataset(row)

    async def get(self, tenant: str, id: str) -> Dataset | None:
        """One dataset, or None."""
        row = await self._row(tenant, id) if can_be_id(id) else None
        return None if row is None else _dataset(row)

    async def report(self, tenant: str, id: str, *, lock: bool = False) -> dict[str, Any] | None:
        """The report of the dataset's last inspection; `lock` locks the row until the transaction ends."""
        row = await self._row(tenant, id, lock=lock)
        return None if row is None else row.report

    async def page(self, tenant: str, query: DatasetQuery) -> Page[Dataset]:
        """A slice of the tenant's datasets."""
        statement: Select[Any] = select(*_SHOWN).where(datasets.c.tenant_id == tenant)
        if query.status:
            statement = statement.where(datasets.c.status == query.status)
        if query.kind:
            statement = statement.where(datasets.c.kind == query.kind)
        rows = await page_of(self._connection, statement, query, sort=_SORT[query.sort_by], id=datasets.c.id)
        total = await self._counts.total(tenant, "dataset", first=query.status, second=query.kind)
        return Page(items=await converted(rows, _dataset), total=total, take=query.take, skip=query.skip)

    async def edit(self, tenant: str, id: str, change: Callable[[Dataset], Mapping[str, Any]]) -> Dataset | None:
        """Set the columns (`status`, `meta`, `report`) that `change` names of one dataset; none leaves it untouched."""
        before = await self._row(tenant, id, lock=True)
        if before is None:
            return None
        values = change(_dataset(before))
        if not values:
            return _dataset(before)
        statement = update(datasets).where(datasets.c.tenant_id == tenant, datasets.c.id == id)
        row = (await self._connection.execute(statement.values(**values, updated_at=now()).returning(datasets))).one()
        self._counts.add(tenant, "dataset", before.status, before.kind, -1)
        self._counts.add(tenant, "dataset", row.status, row.kind, 1)
        return _dataset(row)

    async def remove(self, tenant: str, id: str) -> bool:
        """Delete one dataset; whether it was there.

        Raises:
            InUseError: active jobs use it.
        """
        row = await self._row(tenant, id, lock=True)
        if row is None:
            return False
        await refuse_used(self._connection, jobs.c.active_dataset_id == id)
        await self._connection.execute(delete(datasets).where(datasets.c.id == id))
        self._counts.add(tenant, "dataset", row.status, row.kind, -1)
        return True

    async def unseen(self) -> list[Dataset]:
        """Datasets of all tenants that are being looked at, or were when a service ended."""
        statement = select(*_SHOWN).where(datasets.c.status == "processing", datasets.c.report.is_(None))
        return [_dataset(row) for row in await self._connection.execute(statement)]

    async def at_path(self, tenant: str, path: str) -> list[str]:
        """The ids of the tenant's datasets that have this folder, the oldest first."""
        statement = select(datasets.c.id).where(datasets.c.tenant_id == tenant, datasets.c.path == path)
        return list((await self._connection.execute(statement.order_by(datasets.c.id))).scalars())

    async def has_path(self, tenant: str, path: str) -> bool:
        """Whether a dataset of the tenant has this folder."""
        statement = select(datasets.c.id).where(datasets.c.tenant_id == tenant, datasets.c.path == path).limit(1)
        return (await self._connection.execute(statement)).one_or_none() is not None

    async def _row(self, tenant: str, id: str, *, lock: bool = False) -> Row[Any] | None:
        statement = select(datasets).where(datasets.c.tenant_id == tenant, datasets.c.id == id)
        if lock:
            statement = statement.with_for_update()
        return (await self._connection.execute(statement)).one_or_none()


def _dataset(row: Row[Any]) -> Dataset:
    return Dataset(
        id=row.id,
        tenant_id=row.tenant_id,
        kind=row.kind,
        path=row.path,
        status=row.status,
        meta=row.meta,
        created_at=to_datetime(row.created_at),
        updated_at=to_datetime(row.updated_at),
    )
