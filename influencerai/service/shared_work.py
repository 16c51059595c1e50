"""Shared work: one at a time for each key, for all who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Entry(Generic[T]):
    task: asyncio.Task[T] | None = None
    after: _Entry[T] | None = None
    """What it waits for; None once it has begun."""
    waiting: int = 0
    may_be_joined: bool = True

    def ahead(self) -> _Entry[T] | None:
        """The nearest entry before this one that has not ended: one between them may have been cancelled."""
        found = self.after
        while found is not None and (found.task is None or found.task.done()):
            found = found.after
        return found


class SharedWork(Generic[T]):
    """Requests for the same work share the run that has not begun yet, so that each gets what was found after it came.

    There is at most one run of a key, and one that waits for its end.
    """

    def __init__(self) -> None:
        self._latest: dict[str, _Entry[T]] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns. It is cancelled when the last who waits for it has been."""
        entry = self._latest.get(key)
        if entry is None or not entry.may_be_joined:
            entry = self._begin(key, work, after=entry)
        assert entry.task is not None
        entry.waiting += 1
        try:
            return await asyncio.shield(entry.task)
        finally:
            entry.waiting -= 1
            if not entry.waiting:
                entry.may_be_joined = False
                entry.task.cancel()

    def _begin(self, key: str, work: Callable[[], Awaitable[T]], *, after: _Entry[T] | None) -> _Entry[T]:
        entry = _Entry[T](after=after)

        async def run() -> T:
            while (ahead := entry.ahead()) is not None and ahead.task is not None:
                await asyncio.wait([ahead.task])
            entry.after, entry.may_be_joined = None, False
            return await work()

        def end(task: asyncio.Task[T]) -> None:
            if self._latest.get(key) is entry:
                del self._latest[key]
                if (ahead := entry.ahead()) is not None:  # It was cancelled before it began, and that one goes on.
                    self._latest[key] = ahead
            if not task.cancelled():
                task.exception()  # Nobody may be left who would ask for it.

        entry.task = asyncio.create_task(run())
        entry.task.add_done_callback(end)
        self._latest[key] = entry
        return entry
