"""Series: jobs per day, week or month, counted back from today."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from influencerai.domain.job import JobCount, JobStatus

Window = Literal["day", "week", "month"]
DEFAULT_BUCKETS: dict[Window, int] = {"day": 30, "week": 12, "month": 12}
_FIRST_DAY = date(1970, 1, 1)


def spans(window: Window, *, buckets: int, today: date) -> list[tuple[date, date]]:
    """First and last day of each span, oldest first; the last one holds today."""
    if window == "month":
        return _months(buckets, today=today)
    days = 1 if window == "day" else 7
    lasts = [today - timedelta(days=days * back) for back in reversed(range(buckets))]
    return [(last - timedelta(days=days - 1), last) for last in lasts]


def count_spans(found: list[tuple[date, date]], per_day: Mapping[tuple[int, JobStatus], int]) -> tuple[JobCount, ...]:
    """The jobs of each span, from those per (days since 1970, status)."""
    counted = []
    for first, last in found:
        statuses: dict[str, int] = {}
        for (day, status), count in per_day.items():
            if days_since_1970(first) <= day <= days_since_1970(last):
                statuses[status] = statuses.get(status, 0) + count
        counted.append(JobCount(date=last.isoformat(), **statuses))
    return tuple(counted)


def days_since_1970(day: date) -> int:
    return (day - _FIRST_DAY).days


def utc_today() -> date:
    return datetime.now(UTC).date()


def _months(buckets: int, *, today: date) -> list[tuple[date, date]]:
    first = today.replace(day=1)
    found = []
    for _ in range(buckets):
        following = (first + timedelta(days=31)).replace(day=1)
        found.append((first, following - timedelta(days=1)))
        first = (first - timedelta(days=1)).replace(day=1)
    return found[::-1]
