"""Fair turns: who of those that wait goes next, so that nobody's hundred requests stand before another's one."""

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


class FairTurns:
    """`turns` at once; who waits is served round robin, and none but the server itself has more than `each`.

    Of one, `waiting` may wait.
    """

    def __init__(self, *, turns: int, each: int, waiting: int = _MOST_WAITING) -> None:
        self._free = turns
        self._each = each
        self._most_waiting = waiting
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the end of the block.

        Raises:
            TooManyError: too many of the same wait already.
        """
        give_back = await self.take()
        try:
            yield
        finally:
            give_back()

    async def take(self) -> Callable[[], None]:
        """Wait for a turn; returns what gives it back, once however often it is called.

        Raises:
            TooManyError: a thousand of the same wait already.
        """
        who = _acting_for.get()
        await self._take(who)
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._give_back(who)

        return give_back

    async def _take(self, who: str) -> None:
        if self._free and self._may_have(who):
            self._grant(who)
            return
        line = self._waiting.setdefault(who, deque())
        if len(line) >= self._most_waiting:
            raise TooManyError("Too many requests of this tenant wait", retry_after=1)
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(who, turn)
            else:  # it was granted in the same moment
                self._give_back(who)
            raise

    def _may_have(self, who: str) -> bool:
        return who == OURS or self._held[who] < self._each

    def _grant(self, who: str) -> None:
        self._free -= 1
        self._held[who] += 1

    def _give_back(self, who: str) -> None:
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

    def _leave(self, who: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(who)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[who]
