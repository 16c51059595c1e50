"""Ids: UUIDv7 (RFC 9562), made without coordination, sortable by creation."""

from __future__ import annotations

import secrets
import time
import uuid


def can_be_id(text: str) -> bool:
    """Whether there can be a row of this id; Postgres refuses to be asked for a NUL."""
    return "\0" not in text


def new_id() -> str:
    """48 bits of milliseconds, 12 of their fraction, so that one process' ids follow each other, and 62 random ones."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    value = (milliseconds << 80) | (7 << 76) | (fraction << 64) | (2 << 62) | secrets.randbits(62)
    return str(uuid.UUID(int=value))
