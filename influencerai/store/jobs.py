"""The jobs of a tenant as their users see them; who trains them is the queue's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job import TERMINAL, Job, JobQuery, JobStatus
from influencerai.domain.page import Page
from influencerai.errors import ConflictError, NotFoundError
from influencerai.store.attempts import Attempts
from influencerai.store.counts import Counts
from influencerai.store.dialect import insert_or_keep, now
from influencerai.store.events import append_events
from influencerai.store.ids import new_id
from influencerai.store.job_figures import count_transition
from influencerai.store.paging import converted, page_of
from influencerai.store.schema import artifacts, attempts, datasets, job_metadata, jobs, lora_configs, outputs
from influencerai.store.times import MILLISECONDS_PER_DAY, to_datetime

_SORT = {"createdAt": jobs.c.created_at, "updatedAt": jobs.c.updated_at}
NOT_WAITING: Mapping[str, None] = {"waiting": None, "queue_position": None, "estimated_start": None}
"""Of a job that waits no more."""
CANCELLED = "cancelled"
"""The status that `?status=cancelled` filters by: failed, and asked for."""
SHOWN = [column for column in jobs.c if column.name not in ("snapshot", "plan", "needs")]
"""What a list of jobs needs; what a job trains is long."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a job is made of."""

    type: str
    payload: Mapping[str, Any]
    snapshot: Mapping[str, Any]
    """The resolved config and whatever else decides the training, as it was when the job was made."""
    dataset_id: str | None
    config_id: str | None
    priority: int
    output_dir: str
    """The folder wanted, relative to the tenant's root."""
    id: str = field(default_factory=new_id)
    retry_of: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """A job with what decides about it and its users do not see."""

    job: Job
    snapshot: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    output_dir: str
    owner: str | None
    fence: int
    dataset_id: str | None
    config_id: str | None


@dataclass(frozen=True, kw_only=True)
class StoredArtifact:
    """A file that a job has published."""

    name: str
    kind: str
    path: str
    """Relative to the tenant's root."""
    size: int
    sha256: str
    step: int
    epoch: int
    created_at: int


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
            "snapshot": dict(new.snapshot),
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
        """One job, what it was made of, and its output folder; without its plan, which is long."""
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


async def write_job(
    connection: AsyncConnection, counts: Counts, before: Row[Any], values: Mapping[str, Any]
) -> Row[Any]:
    """Write a locked row's new values with what follows from a change of status.

    Raises:
        ConflictError: the job has ended, and its status would change.
    """
    changed: dict[str, Any] = {"updated_at": now(), **values}
    status = values.get("status", before.status)
    if before.status in TERMINAL and status != before.status:
        raise ConflictError(f"Job {before.id} has ended: it is {before.status} and cannot become {status}")
    if before.started_at is None and status != "pending" and not values.get("cancelled"):
        changed["started_at"] = now()
    if status in TERMINAL and before.status not in TERMINAL:
        changed |= {"finished_at": now(), "active_dataset_id": None, "active_config_id": None, **NOT_WAITING}
        changed |= {"owner": None, "lease_token": None, "lease_expires_at": None}
    statement = update(jobs).where(jobs.c.id == before.id).values(changed).returning(jobs)
    row: Row[Any] = (await connection.execute(statement)).one()
    count_job(counts, before, -1)
    count_job(counts, row, 1)
    count_transition(counts, before, row)
    return row


def count_job(counts: Counts, row: Row[Any], by: int) -> None:
    """Count a job under its status, or as cancelled, and its type."""
    counts.add(row.tenant_id, "job", CANCELLED if row.cancelled else row.status, row.type, by)


def _origin(new: NewJob) -> dict[str, Any]:
    """What a job was made of, as columns for lists."""
    config, dataset = new.snapshot.get("config", {}), new.snapshot.get("dataset", {})
    return {
        "dataset_id": new.payload.get("datasetId"),
        "config_id": new.payload.get("loraConfigId"),
        "dataset_path": dataset.get("path"),
        "config_name": config.get("name"),
        "model_name": config.get("modelName"),
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


def job_of(row: Row[Any]) -> Job:
    """The row as its tenant sees it."""
    return Job.model_construct(  # which validates nothing: the database holds what was validated
        id=row.id,
        tenant_id=row.tenant_id,
        type=row.type,
        status=row.status,
        payload=row.payload,
        metadata=row.metadata or {},
        result=row.result,
        cost_tok=row.cost_tok,
        started_at=_time(row.started_at),
        finished_at=_time(row.finished_at),
        created_at=to_datetime(row.created_at),
        updated_at=to_datetime(row.updated_at),
        lora_config_name=row.config_name,
        model_name=row.model_name,
        dataset_path=row.dataset_path,
        stage=row.stage if row.status == "running" else None,
        waiting=row.waiting if row.status == "pending" else None,
        queue_position=row.queue_position if row.status == "pending" else None,
        estimated_start=_time(row.estimated_start) if row.status == "pending" else None,
        cancel_requested=row.cancel_requested_at is not None,
        retry_of=row.retry_of,
    )


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else to_datetime(milliseconds)


def stored_job(row: Row[Any]) -> StoredJob:
    """The row with what decides about it."""
    return StoredJob(
        job=job_of(row),
        snapshot=row.snapshot,
        plan=row.plan,
        output_dir=row.output_dir,
        owner=row.owner,
        fence=row.fence,
        dataset_id=row.active_dataset_id,
        config_id=row.active_config_id,
    )
