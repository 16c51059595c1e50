"""Usage: what tenants have used of devices and of the disk, and everything of theirs that an operator lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, select, union, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job import TERMINAL, Job
from influencerai.domain.page import Page
from influencerai.domain.usage import AdminJobQuery, DiskUsage
from influencerai.store.attempts import ACTIVE, USED
from influencerai.store.counts import Counts
from influencerai.store.dialect import insert_or_set, now, one_of
from influencerai.store.job_figures import JobFigures, read_figures
from influencerai.store.job_rows import CANCELLED, SHOWN, job_of
from influencerai.store.paging import converted, page_of
from influencerai.store.reservations import Reservations
from influencerai.store.schema import (
    api_keys,
    artifacts,
    attempts,
    counts,
    datasets,
    disk_usage,
    jobs,
    lora_configs,
    outputs,
    quotas,
)
from influencerai.store.times import to_datetime

SUBMITTED = "submitted"
"""The noun under which a tenant's submissions are counted, by day."""
_AT_ONCE = 500
_PARTS = ("datasets", "runs", "loras", "other")


@dataclass(frozen=True, kw_only=True)
class TenantFiles:
    """Where a tenant's files lie, relative to its root."""

    datasets: tuple[str, ...]
    outputs: tuple[str, ...]
    job_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """Whose a job is, and for how long it has been over."""

    tenant_id: str
    is_ended: bool
    ended_seconds: float


@dataclass(frozen=True, kw_only=True)
class NamedFiles:
    """Files that datasets, configurations and active jobs name, relative to the tenant's root."""

    folders: tuple[str, ...]
    texts: frozenset[str]

    def has(self, path: str) -> bool:
        """Whether one of them needs the file."""
        return path in self.texts or any(path == folder or path.startswith(f"{folder}/") for folder in self.folders)


class UsageRecords:
    """Counted by others, in the transactions that use something; read here."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts

    async def time(self) -> datetime:
        """Now, on the database's clock."""
        return to_datetime((await self._connection.execute(select(now()))).scalar_one())

    async def tenants(self) -> list[str]:
        """Every tenant that has something: rows, keys or quotas."""
        named = union(*(select(table.c.tenant_id) for table in (counts, api_keys, quotas))).subquery()
        statement = select(named.c.tenant_id).where(named.c.tenant_id.is_not(None), named.c.tenant_id != "")
        return sorted((await self._connection.execute(statement)).scalars())

    async def job_figures(self) -> JobFigures:
        """How long jobs of all tenants wait and take, and why they fail."""
        return await read_figures(self._connection)

    async def jobs_by_status(self, tenant: str) -> dict[str, int]:
        """The tenant's jobs; cancelled ones are a status of their own."""
        statement = (
            select(counts.c.first, func.sum(counts.c.count))
            .where(counts.c.tenant_id == tenant, counts.c.noun == "job")
            .group_by(counts.c.first)
        )
        found = {status: int(count) for status, count in await self._connection.execute(statement)}
        return {name: found.get(name, 0) for name in ("pending", "running", "completed", "failed", CANCELLED)}

    async def count_submission(self, tenant: str) -> None:
        """One more job of the tenant's today."""
        self._counts.add(tenant, SUBMITTED, f"{await self.time():%Y-%m-%d}", "", 1)

    async def submitted_today(self, tenant: str) -> int:
        """Jobs that the tenant has submitted today (UTC), deleted ones too."""
        return await self._counts.total(tenant, SUBMITTED, first=f"{await self.time():%Y-%m-%d}")

    async def device_seconds(self, tenant: str, *, this_month: bool = False) -> float:
        """What attempts have used and use, deleted jobs' too; lost and broken attempts are free."""
        moment = await self.time()
        month = f"{moment:%Y-%m}"
        start = datetime(moment.year, moment.month, 1, tzinfo=UTC) if this_month else datetime.min.replace(tzinfo=UTC)
        ended = await self._counts.total(tenant, USED, first=month if this_month else None)
        statement = (
            select(attempts.c.started_at, attempts.c.devices)
            .join(jobs, jobs.c.id == attempts.c.job_id)
            .where(jobs.c.tenant_id == tenant, attempts.c.ended_at.is_(None))
        )
        active = 0.0
        for begun, devices in await self._connection.execute(statement):
            active += devices * max(0.0, (moment - max(to_datetime(begun), start)).total_seconds())
        return ended / 1000 + active

    async def disk(self, tenant: str) -> DiskUsage | None:
        """The last measurement; None where nothing was measured yet."""
        row = await self._disk_row(tenant)
        if row is None:
            return None
        parts = {name: getattr(row, name) for name in _PARTS}
        return DiskUsage(**parts, total=sum(parts.values()), measured_at=to_datetime(row.measured_at))

    async def added_bytes(self, tenant: str) -> int:
        """Bytes that were added after the last measurement."""
        row = await self._disk_row(tenant)
        return 0 if row is None else int(row.added)

    async def stored_bytes(self, tenant: str) -> int:
        """Bytes of the last measurement and those that were added after it; those of uploads under way are apart."""
        row = await self._disk_row(tenant)
        return 0 if row is None else int(row.added + sum(getattr(row, name) for name in _PARTS))

    async def taken_bytes(self, tenant: str) -> int:
        """Bytes that are stored, and those that uploads under way may yet write."""
        return await self.stored_bytes(tenant) + await Reservations(self._connection).total(tenant)

    async def note_disk(self, tenant: str, parts: Mapping[str, int], *, seen: int) -> None:
        """Write a measurement, which has seen `seen` of the added bytes."""
        values = {**{name: parts[name] for name in _PARTS}, "measured_at": now()}
        row = {"tenant_id": tenant, **values, "added": 0}
        await self._connection.execute(insert_or_set(self._connection, disk_usage, *values).values(row))
        if seen:
            await self.add_bytes(tenant, -seen)

    async def add_bytes(self, tenant: str, count: int) -> None:
        """Note bytes that were written after the last measurement, or are gone again."""
        statement = update(disk_usage).where(disk_usage.c.tenant_id == tenant)
        await self._connection.execute(statement.values(added=disk_usage.c.added + count))

    async def files(self, tenant: str) -> TenantFiles:
        """Where the tenant's files lie."""
        found = [
            tuple((await self._connection.execute(select(column).where(owner == tenant).distinct())).scalars())
            for column, owner in (
                (datasets.c.path, datasets.c.tenant_id),
                (outputs.c.path, outputs.c.tenant_id),
                (jobs.c.id, jobs.c.tenant_id),
            )
        ]
        return TenantFiles(datasets=found[0], outputs=found[1], job_ids=found[2])

    async def ended_jobs(self, ids: Sequence[str]) -> dict[str, EndedJob]:
        """The jobs with these ids that are there."""
        found: dict[str, EndedJob] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = one_of(self._connection, jobs.c.id, ids[start : start + _AT_ONCE])
            found |= await self._ended(some)
        return found

    async def jobs_with_artifacts(self, *, tenant: str | None) -> dict[str, EndedJob]:
        """The jobs, of one tenant or of all, that have published files."""
        published = jobs.c.id.in_(select(artifacts.c.job_id))
        return await self._ended(published if tenant is None else published & (jobs.c.tenant_id == tenant))

    async def named_files(self, tenant: str) -> NamedFiles:
        """Folders and texts that datasets, configurations and active jobs of the tenant name."""
        folders = (await self.files(tenant)).datasets
        texts: set[str] = set()
        for column, condition in (
            (lora_configs.c.document, lora_configs.c.tenant_id == tenant),
            (jobs.c.snapshot, (jobs.c.tenant_id == tenant) & jobs.c.status.in_(ACTIVE)),
        ):
            for document in (await self._connection.execute(select(column).where(condition))).scalars():
                texts.update(_texts(document))
        return NamedFiles(folders=folders, texts=frozenset(texts))

    async def forget_artifacts(self, job_id: str, names: Sequence[str]) -> None:
        """Delete the rows of files that are gone."""
        for name in names:
            gone = delete(artifacts).where(artifacts.c.job_id == job_id, artifacts.c.name == name)
            await self._connection.execute(gone)

    async def _ended(self, condition: ColumnElement[bool]) -> dict[str, EndedJob]:
        columns = (jobs.c.id, jobs.c.tenant_id, jobs.c.status, jobs.c.finished_at)
        age = (now() - jobs.c.finished_at).label("age")
        return {
            row.id: EndedJob(
                tenant_id=row.tenant_id,
                is_ended=row.status in TERMINAL and row.finished_at is not None,
                ended_seconds=(row.age or 0) / 1000,
            )
            for row in await self._connection.execute(select(*columns, age).where(condition))
        }

    async def jobs(self, query: AdminJobQuery) -> Page[Job]:
        """A slice of all tenants' jobs."""
        statement: Select[Any] = select(*SHOWN)
        if query.tenant is not None:
            statement = statement.where(jobs.c.tenant_id == query.tenant)
        if query.status == CANCELLED:
            statement = statement.where(jobs.c.status == "failed", jobs.c.cancelled)
        elif query.status is not None:
            statement = statement.where(jobs.c.status == query.status)
        total = (await self._connection.execute(select(func.count()).select_from(statement.subquery()))).scalar_one()
        rows = await page_of(self._connection, statement, query, sort=jobs.c.created_at, id=jobs.c.id)
        return Page(items=await converted(rows, job_of), total=total, take=query.take, skip=query.skip)

    async def _disk_row(self, tenant: str) -> Row[Any] | None:
        statement = select(disk_usage).where(disk_usage.c.tenant_id == tenant)
        return (await self._connection.execute(statement)).one_or_none()


def _texts(document: Any) -> Iterator[str]:
    """Every text in a JSON document."""
    if isinstance(document, str):
        yield document.removeprefix("./")
    elif isinstance(document, Mapping):
        for value in document.values():
            yield from _texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)
