"""Times as the database keeps them: milliseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

MILLISECONDS_PER_DAY = 24 * 3600 * 1000
_START = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(milliseconds: int) -> datetime:
    return _START + timedelta(milliseconds=milliseconds)


def to_milliseconds(time: datetime) -> int:
    return (time - _START) // timedelta(milliseconds=1)
