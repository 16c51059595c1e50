"""Upkeep: what must happen though nobody asks.

Lost jobs go back to the queue, late folders are looked at, and what killed attempts have left is removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from influencerai.errors import InfluencerAIError
from influencerai.service.cleanup import CleanupRules, CleanupService
from influencerai.service.datasets import DatasetService
from influencerai.service.keys import KeyService
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.returns import RetryRules
from influencerai.worker.remains import Remains

_SECONDS = 2.0
_UNSEEN_SECONDS = 24 * 3600
_DAY_SECONDS = 24 * 3600.0
_log = logging.getLogger(__name__)


class Upkeep:
    """A task of the serving process; several processes do it side by side without harm."""

    def __init__(
        self, store: Store, settings: Settings, datasets: DatasetService, keys: KeyService, cleanup: CleanupService
    ) -> None:
        self._store = store
        self._settings = settings
        self._datasets = datasets
        self._keys = keys
        self._cleanup = cleanup
        self._cleaned: float | None = None
        self._remains = Remains(store, settings)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._guarded(partial(self._keys.write_uses, at_once=True))

    async def _run(self) -> None:
        await self._guarded(self._datasets.resume_looking)
        while True:
            await self._guarded(self._once)
            await self._guarded(self._remains.remove)
            await self._guarded(self._keys.write_uses)
            await self._guarded(self._clean_daily)
            await asyncio.sleep(_SECONDS)

    async def _once(self) -> None:
        async with self._store.write() as transaction:
            await transaction.queue.reap(retries=RetryRules.of(self._settings))
            waited_for = await transaction.turns.explain_waiting(
                dataset_wait_seconds=self._settings.dataset_wait_seconds
            )
            await transaction.workers.forget(unseen_seconds=_UNSEEN_SECONDS)
            await transaction.nodes.forget(unseen_seconds=_UNSEEN_SECONDS)
        for tenant, dataset_id in waited_for:
            self._datasets.look_soon(tenant, dataset_id)

    async def _clean_daily(self) -> None:
        days, moment = self._settings.retention_days, time.monotonic()
        if days is None or (self._cleaned is not None and moment - self._cleaned < _DAY_SECONDS):
            return
        self._cleaned = moment
        report = await self._cleanup.run(CleanupRules(older_than=timedelta(days=days)))
        _log.info("Cleanup removed %d bytes.", report.total_bytes)
        for problem in report.problems:
            _log.warning("Cleanup: %s", problem)

    @staticmethod
    async def _guarded(work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except InfluencerAIError as error:
            _log.warning("Upkeep waits: %s", error)
        except Exception:
            _log.exception("Upkeep failed and goes on.")
