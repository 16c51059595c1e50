"""Admission: requests of one tenant begin one after another, so that a burst does not keep others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from influencerai.store.fair_turns import FairTurns

_TURNS, _EACH = 16, 1
_MOST_SECONDS = 0.05
"""Of a request that waits for something else by then, such as the next event, an upload's body or a picture."""


class Admission:
    """Turns of requests, for whomever `acting_for` names.

    A request holds its turn until it is answered, but not for long: turns share out the time of the event loop, of
    which a request needs a few milliseconds; whatever else it needs has limits of its own.
    """

    def __init__(self) -> None:
        self._turns = FairTurns(turns=_TURNS, each=_EACH)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; the request is handled in the block.

        Raises:
            TooManyError: a thousand requests of the same tenant wait already.
        """
        give_back = await self._turns.take()
        later = asyncio.get_running_loop().call_later(_MOST_SECONDS, give_back)
        try:
            yield
        finally:
            later.cancel()
            give_back()
