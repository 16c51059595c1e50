"""Job figures: how long jobs wait and take and why they fail, counted when it happens, over all tenants and servers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job import TERMINAL
from influencerai.store.counts import Counts
from influencerai.store.dialect import now
from influencerai.store.schema import counts, jobs, metrics

WAIT_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400)
JOB_SECONDS = (30, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
"""Upper bounds of the histograms' buckets."""
_WAIT, _WAIT_MS, _TOOK, _TOOK_MS, _FAILURE = "wait", "wait_ms", "took", "took_ms", "failure"
"""Nouns of `counts`, of no tenant."""
_LAST = "inf"


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A histogram as Prometheus has it."""

    buckets: tuple[tuple[str, int], ...]
    """Upper bound, and how many are at most that."""
    total: float
    """Sum in seconds."""


@dataclass(frozen=True, kw_only=True)
class JobFigures:
    """Since the database was made."""

    wait: Distribution
    took: dict[str, Distribution]
    """By outcome: completed, failed, cancelled."""
    failures: dict[str, int]
    """By code."""
    oldest_pending_seconds: float
    images_per_second: float
    """Of all running jobs, by their last steps."""


def count_transition(counts: Counts, before: Row[Any], after: Row[Any]) -> None:
    """Count a job that begins to run for the first time, or ends."""
    if before.started_at is None and after.status == "running":
        waited = max(0, after.started_at - after.created_at)
        counts.add("", _WAIT, _bucket(waited, WAIT_SECONDS), "", 1)
        counts.add("", _WAIT_MS, "", "", waited)
    if before.status in TERMINAL or after.status not in TERMINAL:
        return
    outcome = "cancelled" if after.cancelled else after.status
    if after.started_at is not None:
        took = max(0, after.finished_at - after.started_at)
        counts.add("", _TOOK, outcome, _bucket(took, JOB_SECONDS), 1)
        counts.add("", _TOOK_MS, outcome, "", took)
    if outcome == "failed":
        counts.add("", _FAILURE, after.error_code or "reported", "", 1)


async def read_figures(connection: AsyncConnection) -> JobFigures:
    """The figures as this transaction sees them."""
    statement = select(counts.c.noun, counts.c.first, counts.c.second, counts.c.count).where(counts.c.tenant_id == "")
    found = {(noun, first, second): int(count) for noun, first, second, count in await connection.execute(statement)}
    waits = {first: count for (noun, first, _), count in found.items() if noun == _WAIT}
    took: dict[str, dict[str, int]] = {outcome: {} for outcome in ("completed", "failed", "cancelled")}
    for (noun, outcome, bound), count in found.items():
        if noun == _TOOK:
            took.setdefault(outcome, {})[bound] = count
    oldest = select(now() - func.min(jobs.c.created_at)).where(jobs.c.status == "pending")
    age = (await connection.execute(oldest)).scalar_one()
    return JobFigures(
        wait=_distribution(waits, WAIT_SECONDS, found.get((_WAIT_MS, "", ""), 0)),
        took={
            outcome: _distribution(parts, JOB_SECONDS, found.get((_TOOK_MS, outcome, ""), 0))
            for outcome, parts in took.items()
        },
        failures={first: count for (noun, first, _), count in found.items() if noun == _FAILURE},
        oldest_pending_seconds=0.0 if age is None else max(0, age) / 1000,
        images_per_second=await _speed(connection),
    )


async def _speed(connection: AsyncConnection) -> float:
    last = (
        select(metrics.c.images_per_second)
        .where(metrics.c.job_id == jobs.c.id, metrics.c.images_per_second.is_not(None))
        .order_by(metrics.c.step.desc())
        .limit(1)
        .scalar_subquery()
    )
    speeds = (await connection.execute(select(last).where(jobs.c.status == "running"))).scalars()
    return float(sum(speed for speed in speeds if speed is not None))


def _bucket(milliseconds: int, bounds: tuple[int, ...]) -> str:
    return next((str(bound) for bound in bounds if milliseconds <= 1000 * bound), _LAST)


def _distribution(parts: dict[str, int], bounds: tuple[int, ...], milliseconds: int) -> Distribution:
    names = [*map(str, bounds), _LAST]
    totals = accumulate(parts.get(name, 0) for name in names)
    shown = ("+Inf" if name == _LAST else f"{int(name):.1f}" for name in names)
    return Distribution(buckets=tuple(zip(shown, totals, strict=True)), total=milliseconds / 1000)
