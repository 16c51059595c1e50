"""Maintenance: the periodic round of a serving process.

It requeues lost jobs, inspects folders that were not readable, and removes what killed attempts have left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from influencerai.errors import InfluencerAIError
from influencerai.service.cleanup import CleanupRules, CleanupService
from influencerai.service.datasets import DatasetService
from influencerai.service.keys import KeyService
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.requeue import RetryRules
from influencerai.worker.cleanup import RunCleanup

_SECONDS = 2.0
_UNSEEN_SECONDS = 24 * 3600
_DAY_SECONDS = 24 * 3600.0
_log = logging.getLogger(__name__)


class Maintenance:
    """A task of the serving process; several processes do it side by side without harm."""

    def __init__(
        self, store: Store, settings: Settings, datasets: DatasetService, keys: KeyService, cleanup: CleanupService
    ) -> None:
        self._store = store
        self._settings = settings
        self._datasets = datasets
        self._keys = keys
        self._cleanup = cleanup
        self._run_cleanup = RunCleanup(store, settings)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks.append(asyncio.create_task(self._run()))
        if self._settings.retention_days is not None:  # apart, since walking a large disk may take hours
            rules = CleanupRules(older_than=timedelta(days=self._settings.retention_days))
            self._tasks.append(asyncio.create_task(self._clean_daily(rules)))

    async def stop(self) -> None:
        """End."""
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._guarded(partial(self._keys.write_uses, at_once=True))

    async def _run(self) -> None:
        await self._guarded(self._datasets.inspections.resume)
        while True:
            await self._guarded(self._once)
            await self._guarded(self._run_cleanup.remove)
            await self._guarded(self._keys.write_uses)
            await asyncio.sleep(_SECONDS)

    async def _once(self) -> None:
        async with self._store.write() as transaction:
            await transaction.queue.rescue(retries=RetryRules.of(self._settings))
            waited_for = await transaction.pending_jobs.explain_waiting(
                dataset_wait_seconds=self._settings.dataset_wait_seconds
            )
            await transaction.workers.forget(unseen_seconds=_UNSEEN_SECONDS)
            await transaction.nodes.forget(unseen_seconds=_UNSEEN_SECONDS)
        for tenant, dataset_id in waited_for:
            self._datasets.inspect_soon(tenant, dataset_id)

    async def _clean_daily(self, rules: CleanupRules) -> None:
        while True:
            await self._guarded(partial(self._clean, rules))
            await asyncio.sleep(_DAY_SECONDS)

    async def _clean(self, rules: CleanupRules) -> None:
        report = await self._cleanup.run(rules)
        _log.info("Cleanup removed %d bytes.", report.total_bytes)
        for problem in report.problems:
            _log.warning("Cleanup: %s", problem)

    @staticmethod
    async def _guarded(work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except InfluencerAIError as error:
            _log.warning("Maintenance waits: %s", error)
        except Exception:
            _log.exception("Maintenance failed and continues.")
