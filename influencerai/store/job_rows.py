"""Job rows: what a row of `jobs` holds, read and written as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Row, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job import TERMINAL, Job
from influencerai.domain.job_snapshot import JobSnapshot
from influencerai.errors import ConflictError
from influencerai.store.counts import Counts
from influencerai.store.dialect import now
from influencerai.store.ids import new_id
from influencerai.store.job_figures import count_transition
from influencerai.store.schema import jobs
from influencerai.store.times import to_datetime

NOT_WAITING: Mapping[str, None] = {"waiting": None, "queue_position": None, "estimated_start": None}
"""Columns of a job that waits no more."""
CANCELLED = "cancelled"
"""The status that `?status=cancelled` filters by: failed, and asked for."""
SHOWN = [column for column in jobs.c if column.name not in ("snapshot", "plan", "needs")]
"""Columns of a list of jobs, without the long documents."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to be added."""

    type: str
    payload: Mapping[str, Any]
    snapshot: JobSnapshot
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
    """A job with the columns that its users do not see."""

    job: Job
    document: Mapping[str, Any]
    """The snapshot as it is stored."""
    plan: Mapping[str, Any] | None
    output_dir: str
    owner: str | None
    fence: int
    dataset_id: str | None
    config_id: str | None

    @cached_property
    def snapshot(self) -> JobSnapshot:
        """What the job trains; decoded at the first access, so that a job that cannot be read can be deleted.

        Raises:
            ValidationError: an earlier version stored what this one cannot train.
        """
        return JobSnapshot.restore(self.document)


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
    """The row as the store's callers see it."""
    return StoredJob(
        job=job_of(row),
        document=row.snapshot,
        plan=row.plan,
        output_dir=row.output_dir,
        owner=row.owner,
        fence=row.fence,
        dataset_id=row.active_dataset_id,
        config_id=row.active_config_id,
    )


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
