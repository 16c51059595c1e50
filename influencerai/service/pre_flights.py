"""Pre-flights: what a job would do, need and fail on, with nothing stored."""

from __future__ import annotations

import asyncio

from influencerai.domain import LoraConfig
from influencerai.domain.job import JobDraft
from influencerai.preflight import Preflight, preflight
from influencerai.service.datasets import DatasetService
from influencerai.service.jobs import resolve_draft, with_trigger_word
from influencerai.settings import Settings
from influencerai.store import Store, Transaction


class PreFlightService:
    """Checks of one tenant's drafts, per call."""

    def __init__(self, store: Store, settings: Settings, datasets: DatasetService) -> None:
        self._store = store
        self._settings = settings
        self._datasets = datasets

    async def check(self, tenant: str, draft: JobDraft) -> Preflight:
        """The report on a draft.

        Raises:
            NotFoundError: dataset or configuration are not there.
            ValidationError: no configuration is named, and the tenant has no default one.
        """
        async with self._store.read() as transaction:
            dataset, _, config = await resolve_draft(transaction, tenant, draft)
            speed = await self._speed(transaction, tenant, config)
        return await asyncio.to_thread(
            preflight,
            with_trigger_word(config, dataset),
            self._datasets.folder(tenant, dataset),
            settings=self._settings,
            as_path=False,
            throughput=speed,
        )

    async def _speed(self, transaction: Transaction, tenant: str, config: LoraConfig) -> float | None:
        """Images per second of the tenant's last completed job that trained alike."""
        for stored in await transaction.jobs.last_completed(tenant):
            other = stored.snapshot["config"]
            if (other["modelName"], other["resolution"], other["batchSize"]) == (
                config.model_name,
                config.resolution,
                config.batch_size,
            ):
                return await transaction.events.speed(stored.job.id)
        return None
