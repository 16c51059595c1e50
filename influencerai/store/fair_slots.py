"""Fair slots: bounded concurrency, served round robin by tenant: no tenant's requests delay another's first one."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from influencerai.errors import TooManyError

OURS = ""
"""What the server does of its own accord."""
_MOST_WAITING = 1000
_acting_for: ContextVar[str] = ContextVar("acting_for", default=OURS)


@contextmanager
def acting_for(who: str) -> Iterator[None]:
    """Count what is done in this block, and in tasks that it begins, to `who`: a tenant or a peer's address."""
    token = _acting_for.set(who)
    try:
        yield
    finally:
        _acting_for.reset(token)


class FairSlots:
    """At most `slots` holders at once; waiting tenants are served round robin, each holds at most `each`.

    The server itself (`OURS`) has no such limit. Of each tenant at most `waiting` requests wait.
    """

    def __init__(self, *, slots: int, each: int, waiting: int = _MOST_WAITING) -> None:
        self._free = slots
        self._each = each
        self._most_waiting = waiting
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it until the end of the block.

        Raises:
            TooManyError: too many of the same wait already.
        """
        release = await self.take()
        try:
            yield
        finally:
            release()

    async def take(self) -> Callable[[], None]:
        """Wait for a slot; returns the function that releases it, which may be called repeatedly.

        Raises:
            TooManyError: a thousand of the same wait already.
        """
        who = _acting_for.get()
        await self._take(who)
        is_held = True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._release(who)

        return release

    async def _take(self, who: str) -> None:
        if self._free and self._may_have(who):
            self._grant(who)
            return
        line = self._waiting.setdefault(who, deque())
        if len(line) >= self._most_waiting:
            raise TooManyError("Too many requests of this tenant wait", retry_after=1)
        slot = asyncio.get_running_loop().create_future()
        line.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.cancelled():
                self._leave(who, slot)
            else:  # it was granted in the same moment
                self._release(who)
            raise

    def _may_have(self, who: str) -> bool:
        return who == OURS or self._held[who] < self._each

    def _grant(self, who: str) -> None:
        self._free -= 1
        self._held[who] += 1

    def _release(self, who: str) -> None:
        self._free += 1
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]
        self._serve_next()

    def _serve_next(self) -> None:
        for who in list(self._waiting):
            if not self._free:
                return
            if not self._may_have(who):
                continue
            line = self._waiting.pop(who)
            while line and line[0].done():
                line.popleft()  # It was cancelled, and its task has not run since.
            if not line:
                continue
            self._grant(who)
            line.popleft().set_result(None)
            if line:
                self._waiting[who] = line  # at the end

    def _leave(self, who: str, slot: asyncio.Future[None]) -> None:
        line = self._waiting.get(who)
        if line is not None and slot in line:
            line.remove(slot)
            if not line:
                del self._waiting[who]
