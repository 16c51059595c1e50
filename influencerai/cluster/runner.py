"""RayRunner: submitted jobs train on the Ray cluster that this process has joined."""

from __future__ import annotations

import asyncio
import logging

from influencerai.cluster.dispatcher import Dispatcher, end_seconds
from influencerai.settings import Settings

_STOP_MARGIN_SECONDS = 15.0
_log = logging.getLogger(__name__)


class RayRunner:
    """A dispatcher, for as long as it runs; the Ray that it uses is started before and ended after it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(Dispatcher(self._settings).run(self._stopping))

    async def stop(self) -> None:
        """End, with every running job's state saved and the job given back to the queue."""
        self._stopping.set()
        if self._task is None:
            return
        _, late = await asyncio.wait({self._task}, timeout=end_seconds(self._settings) + _STOP_MARGIN_SECONDS)
        if late:
            self._task.cancel()
        [outcome] = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(outcome, Exception):
            _log.error("The dispatcher has ended: %s", outcome)
