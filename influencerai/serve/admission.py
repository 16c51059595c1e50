"""Admission: requests of one tenant begin one after another, so that a burst does not keep others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from influencerai.store.fair_slots import FairSlots

_SLOTS, _EACH = 16, 1
_MOST_SECONDS = 0.05
"""Of a request that waits for something else by then, such as the next event, an upload's body or a picture."""


class Admission:
    """Slots for requests, counted to the tenant or peer that `acting_for` names.

    A request holds its slot until it is answered, but not for long: slots share out the time of the event loop, of
    which a request needs a few milliseconds; whatever else it needs has limits of its own.
    """

    def __init__(self) -> None:
        self._slots = FairSlots(slots=_SLOTS, each=_EACH)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot; the request is handled in the block.

        Raises:
            TooManyError: a thousand requests of the same tenant wait already.
        """
        release = await self._slots.take()
        later = asyncio.get_running_loop().call_later(_MOST_SECONDS, release)
        try:
            yield
        finally:
            later.cancel()
            release()
