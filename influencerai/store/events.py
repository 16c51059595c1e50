"""Events: one ordered log per job, numbered without gaps, and the figures of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.errors import NotFoundError
from influencerai.store.dialect import insert_or_fill, now
from influencerai.store.schema import events, jobs, metrics
from influencerai.store.times import to_datetime

_FIGURES = ("loss", "learning_rate", "images_per_second", "validation_loss")


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """One event of a job."""

    seq: int
    type: str
    data: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """Figures of one optimizer step; those of a later validation stand alone."""

    step: int
    epoch: int
    loss: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    validation_loss: float | None = None


class Events:
    """Rows of `events`; the caller has checked whose the jobs are."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def append(self, job_id: str, *new: tuple[str, Mapping[str, Any]]) -> None:
        """The job's next events, as (type, data).

        Raises:
            NotFoundError: there is no such job.
        """
        await append_events(self._connection, job_id, new)

    async def after(self, job_id: str, seq: int, *, limit: int) -> list[StoredEvent]:
        """Events that follow number `seq`, in order."""
        statement = (
            select(events).where(events.c.job_id == job_id, events.c.seq > seq).order_by(events.c.seq).limit(limit)
        )
        return [
            StoredEvent(seq=row.seq, type=row.type, data=row.data, created_at=to_datetime(row.created_at))
            for row in await self._connection.execute(statement)
        ]

    async def last_numbers(self, job_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """The number of the last event, and the status, of each job that is still there; one query for many."""
        statement = select(jobs.c.id, jobs.c.last_seq, jobs.c.status).where(jobs.c.id.in_(job_ids))
        return {row.id: (row.last_seq, row.status) for row in await self._connection.execute(statement)}

    async def figures(self, job_id: str, *, points: int) -> list[StepFigures]:
        """About `points` steps at equal distances, the first and the last among them, and every validation."""
        counted = select(func.count()).select_from(metrics).where(metrics.c.job_id == job_id)
        count = (await self._connection.execute(counted)).scalar_one()
        every = max(1, -(-(count - 1) // max(points - 1, 1)))
        # By place, not by step: steps that were not recorded leave gaps.
        place = (func.row_number().over(order_by=metrics.c.step) - 1).label("place")
        placed = select(metrics, place).where(metrics.c.job_id == job_id).subquery()
        chosen = or_(placed.c.place % every == 0, placed.c.place == count - 1, placed.c.validation_loss.is_not(None))
        rows = await self._connection.execute(select(placed).where(chosen).order_by(placed.c.step))
        return [StepFigures(**{name: getattr(row, name) for name in ("step", "epoch", *_FIGURES)}) for row in rows]

    async def speed(self, job_id: str) -> float | None:
        """Mean images per second of the job's steps."""
        statement = select(func.avg(metrics.c.images_per_second)).where(metrics.c.job_id == job_id)
        mean: float | None = (await self._connection.execute(statement)).scalar_one()
        return mean


async def append_events(connection: AsyncConnection, job_id: str, new: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """The numbers come from the job's row, whose lock keeps them gapless and in the order of commits."""
    if not new:
        return
    statement = (
        update(jobs).where(jobs.c.id == job_id).values(last_seq=jobs.c.last_seq + len(new)).returning(jobs.c.last_seq)
    )
    last = (await connection.execute(statement)).scalar_one_or_none()
    if last is None:
        raise NotFoundError.of("Job", job_id)
    rows = [
        {"job_id": job_id, "seq": last - len(new) + index, "type": type, "data": dict(data)}
        for index, (type, data) in enumerate(new, start=1)
    ]
    await connection.execute(insert(events).values(created_at=now()), rows)


async def write_figures(connection: AsyncConnection, job_id: str, figures: Sequence[StepFigures]) -> None:
    """Write each step's figures over what is there; what is None leaves the old value."""
    if figures:
        rows = [{"job_id": job_id, **asdict(item)} for item in figures]
        await connection.execute(insert_or_fill(connection, metrics, "epoch", *_FIGURES), rows)
