"""The jobs of a tenant, as their users see them; who trains them is the queue's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job import TERMINAL, Job, JobQuery, JobStatus
from influencerai.domain.page import Page
from influencerai.errors import NotFoundError
from influencerai.store.attempts import Attempts
from influencerai.store.counts import Counts
from influencerai.store.dialect import insert_or_keep, now
from influencerai.store.events import append_events
from influencerai.store.job_rows import (
    CANCELLED,
    SHOWN,
    NewJob,
    StoredArtifact,
    StoredJob,
    count_job,
    job_of,
    stored_job,
)
from influencerai.store.paging import converted, page_of
from influencerai.store.schema import artifacts, attempts, datasets, job_metadata, jobs, lora_configs, outputs
from influencerai.store.times import MILLISECONDS_PER_DAY

_SORT = {"createdAt": jobs.c.created_at, "updatedAt": jobs.c.updated_at}


class Jobs:
    """Rows of `jobs`; every method is about one tenant's."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts

    async def add(self, tenant: str, new: NewJob) -> StoredJob:
        """A new pending job. A taken output folder gets the job's id as suffix.

        Raises:
            NotFoundError: the tenant has no such dataset or config (any more).
        """
        id = new.id
        values = {
            "id": id,
            "tenant_id": tenant,
            "type": new.type,
            "status": "pending",
            "cancelled": False,
            "payload": dict(new.payload),
            "snapshot": new.snapshot.to_wire(),
            "plan": None if new.plan is None else dict(new.plan),
            "output_dir": new.output_dir,
            "retry_of": new.retry_of,
            **_origin(new),
            "metadata": dict(new.metadata) or None,
            "active_dataset_id": new.dataset_id,
            "active_config_id": new.config_id,
            "priority": new.priority,
            "not_before": 0,
            "fence": 0,
            "lost_attempts": 0,
            "broken_attempts": 0,
            "last_seq": 0,
            "created_at": now(),
            "updated_at": now(),
        }
        await self._keep(tenant, "Dataset", datasets, new.dataset_id)
        await self._keep(tenant, "LoRA config", lora_configs, new.config_id)
        if not await self.active(tenant):
            await Attempts(self._connection, self._counts).lift(tenant)
        await self._connection.execute(insert(jobs).values(values))
        await self._set_metadata(tenant, id, new.metadata)
        reserved = await self._reserve(tenant, id, new.output_dir)
        await append_events(self._connection, id, [("status", {"status": "pending"})])
        statement = update(jobs).where(jobs.c.id == id).values(output_dir=reserved).returning(jobs)
        row = (await self._connection.execute(statement)).one()
        count_job(self._counts, row, 1)
        return stored_job(row)

    async def get(self, tenant: str, id: str) -> Job | None:
        """One job as its users see it, or None."""
        statement = select(*SHOWN).where(jobs.c.tenant_id == tenant, jobs.c.id == id)
        row = (await self._connection.execute(statement)).one_or_none()
        return None if row is None else job_of(row)

    async def detail(self, tenant: str, id: str) -> tuple[Job, Mapping[str, Any], str] | None:
        """One job, its snapshot as it is stored, and its output folder; without its execution plan, which is long."""
        statement: Select[Any] = select(*SHOWN, jobs.c.snapshot).where(jobs.c.tenant_id == tenant, jobs.c.id == id)
        row = (await self._connection.execute(statement)).one_or_none()
        return None if row is None else (job_of(row), row.snapshot, row.output_dir)

    async def stored(self, tenant: str, id: str) -> StoredJob | None:
        """One job with what it trains, or None."""
        row = await self._row(tenant, id)
        return None if row is None else stored_job(row)

    async def page(self, tenant: str, query: JobQuery) -> Page[Job]:
        """A slice of the tenant's jobs."""
        statement: Select[Any] = select(*SHOWN).where(jobs.c.tenant_id == tenant, *_filters(tenant, query))
        if query.status == CANCELLED:
            statement = statement.where(jobs.c.status == "failed", jobs.c.cancelled)
        elif query.status:
            statement = statement.where(jobs.c.status == query.status)
        if query.type is not None:
            statement = statement.where(jobs.c.type == query.type)
        total = await self._total(tenant, query, statement)
        rows: Sequence[Row[Any]] = []
        if total > query.skip:  # else a filter that nothing passes would look at every job
            rows = await page_of(self._connection, statement, query, sort=_SORT[query.sort_by], id=jobs.c.id)
        return Page(items=await converted(rows, job_of), total=total, take=query.take, skip=query.skip)

    async def active(self, tenant: str) -> int:
        """Pending and running jobs of the tenant."""
        return await self._counts.total(tenant, "job", first="pending") + await self._counts.total(
            tenant, "job", first="running"
        )

    async def per_day(self, tenant: str, *, since: int) -> dict[tuple[int, JobStatus], int]:
        """Jobs by (days since 1970 in UTC, status), from day `since` on.

        Ended jobs count on the day on which they ended, others on that of their creation.
        """
        start = since * MILLISECONDS_PER_DAY
        found: dict[tuple[int, JobStatus], int] = {}
        for ended, time in ((True, jobs.c.finished_at), (False, jobs.c.created_at)):
            day = (time - time % MILLISECONDS_PER_DAY).label("day")
            statuses = jobs.c.status.in_(sorted(TERMINAL)) if ended else jobs.c.status.not_in(sorted(TERMINAL))
            statement = (
                select(day, jobs.c.status, func.count())
                .where(jobs.c.tenant_id == tenant, time >= start, statuses)
                .group_by(day, jobs.c.status)
            )
            for milliseconds, status, count in await self._connection.execute(statement):
                found[milliseconds // MILLISECONDS_PER_DAY, status] = count
        return found

    async def remove(self, tenant: str, id: str, *, check: Callable[[StoredJob], None]) -> StoredJob | None:
        """Delete one job with its events, figures and artifacts' rows, unless `check` raises; what it was."""
        row = await self._row(tenant, id, lock=True)
        if row is None:
            return None
        check(stored_job(row))
        await self._connection.execute(delete(jobs).where(jobs.c.id == id))
        count_job(self._counts, row, -1)
        return stored_job(row)

    async def artifacts(self, tenant: str, id: str) -> list[StoredArtifact]:
        """The files that a job has published, in the order of training."""
        statement = (
            select(artifacts)
            .join(jobs, jobs.c.id == artifacts.c.job_id)
            .where(jobs.c.tenant_id == tenant, jobs.c.id == id)
            .order_by(artifacts.c.step, artifacts.c.kind, artifacts.c.name)
        )
        names = StoredArtifact.__dataclass_fields__
        rows = await self._connection.execute(statement)
        return [StoredArtifact(**{name: getattr(row, name) for name in names}) for row in rows]

    async def attempts(self, tenant: str, id: str) -> list[dict[str, Any]]:
        """Who has tried to train a job, in order."""
        statement = (
            select(attempts)
            .join(jobs, jobs.c.id == attempts.c.job_id)
            .where(jobs.c.tenant_id == tenant, jobs.c.id == id)
            .order_by(attempts.c.fence)
        )
        return [dict(row._mapping) for row in await self._connection.execute(statement)]

    async def last_completed(self, tenant: str, *, limit: int = 20) -> list[StoredJob]:
        """The tenant's newest completed jobs, newest first."""
        statement = (
            select(jobs)
            .where(jobs.c.tenant_id == tenant, jobs.c.status == "completed")
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .limit(limit)
        )
        return [stored_job(row) for row in await self._connection.execute(statement)]

    async def set_metadata(self, tenant: str, id: str, found: Mapping[str, str]) -> Job | None:
        """Replace a job's metadata; the job, or None where there is none."""
        values = {"metadata": dict(found) or None, "updated_at": now()}
        statement = update(jobs).where(jobs.c.tenant_id == tenant, jobs.c.id == id).values(values).returning(*SHOWN)
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            return None
        await self._connection.execute(delete(job_metadata).where(job_metadata.c.job_id == id))
        await self._set_metadata(tenant, id, found)
        return job_of(row)

    async def _set_metadata(self, tenant: str, id: str, found: Mapping[str, str]) -> None:
        rows = [{"job_id": id, "tenant_id": tenant, "key": key, "value": value} for key, value in found.items()]
        if rows:
            await self._connection.execute(insert(job_metadata), rows)

    async def _keep(self, tenant: str, noun: str, table: Table, id: str | None) -> None:
        """Until the transaction ends, nobody deletes the row; then the job's reference keeps it."""
        if id is None:
            return
        statement = select(table.c.id).where(table.c.tenant_id == tenant, table.c.id == id)
        found = await self._connection.execute(statement.with_for_update(read=True, key_share=True))
        if found.one_or_none() is None:
            raise NotFoundError.of(noun, id)

    async def _reserve(self, tenant: str, id: str, folder: str) -> str:
        for path in (folder, f"{folder}-{id}"):
            row = {"tenant_id": tenant, "path": path, "job_id": id}
            if (await self._connection.execute(insert_or_keep(self._connection, outputs), row)).rowcount:
                return path
        raise AssertionError("an id is used once")

    async def _total(self, tenant: str, query: JobQuery, statement: Select[Any]) -> int:
        """By the counts that are kept where the filters allow it, else by counting what `statement` selects."""
        if _filters(tenant, query):
            counted = statement.with_only_columns(func.count())
            return int((await self._connection.execute(counted)).scalar_one())
        total = await self._counts.total(tenant, "job", first=query.status, second=query.type)
        if query.status == "failed":
            total += await self._counts.total(tenant, "job", first=CANCELLED, second=query.type)
        return total

    async def _row(self, tenant: str, id: str, *, lock: bool = False) -> Row[Any] | None:
        statement = select(jobs).where(jobs.c.tenant_id == tenant, jobs.c.id == id)
        if lock:
            statement = statement.with_for_update()
        return (await self._connection.execute(statement)).one_or_none()


def _origin(new: NewJob) -> dict[str, Any]:
    """Columns of lists: the dataset and the configuration that the job was made of."""
    return {
        "dataset_id": new.payload.get("datasetId"),
        "config_id": new.payload.get("loraConfigId"),
        "dataset_path": new.snapshot.dataset.path,
        "config_name": new.snapshot.config.name,
        "model_name": new.snapshot.config.model_name,
    }


def _filters(tenant: str, query: JobQuery) -> list[ColumnElement[bool]]:
    """Conditions of a list beyond status and type."""
    found: list[ColumnElement[bool]] = []
    if query.dataset_id is not None:
        found.append(jobs.c.dataset_id == query.dataset_id)
    if query.lora_config_id is not None:
        found.append(jobs.c.config_id == query.lora_config_id)
    for text in query.metadata:
        key, _, value = text.partition(":")
        having = (job_metadata.c.tenant_id == tenant, job_metadata.c.key == key, job_metadata.c.value == value)
        found.append(jobs.c.id.in_(select(job_metadata.c.job_id).where(*having)))
    return found
