"""Causes: what lies behind an error, and whether that is the machine's fault."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_INFRASTRUCTURE = frozenset(
    {
        errno.EAGAIN,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
        errno.ESTALE,
    }
)
"""What a machine runs out of or loses, and no user can mend."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [cause for cause in (current.__cause__, current.__context__) if cause is not None]


def is_infrastructure(error: BaseException) -> bool:
    """Whether a full disk, a lost device or the like is behind the error, so that it is worth another attempt."""
    return any(isinstance(cause, OSError) and cause.errno in _INFRASTRUCTURE for cause in causes(error))
