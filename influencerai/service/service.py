"""Service: all that users can do, by noun."""

from __future__ import annotations

from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.base_models import BaseModelService
from influencerai.service.cleanup import CleanupService
from influencerai.service.cluster import ClusterService
from influencerai.service.dataset_images import DatasetImageService
from influencerai.service.datasets import DatasetService
from influencerai.service.event_streams import EventStreams
from influencerai.service.health import HealthService
from influencerai.service.job_log import JobLogService
from influencerai.service.job_runs import JobRunService
from influencerai.service.jobs import JobService
from influencerai.service.keys import KeyService
from influencerai.service.lora_configs import LoraConfigService
from influencerai.service.maintenance import Maintenance
from influencerai.service.picture_work import PictureWork
from influencerai.service.pre_flights import PreFlightService
from influencerai.service.quotas import QuotaService
from influencerai.service.usage import UsageService
from influencerai.settings import Settings
from influencerai.store import Store


class Service:
    """The rules, over one database and one root. `open` before use, `close` at the end."""

    def __init__(self, settings: Settings, *, needs_worker: bool = True) -> None:
        self.settings = settings
        self.store = Store(settings.database_url)
        self.folders = TenantFolders(settings)
        self.base_models = BaseModelService(settings)
        self.usage = UsageService(self.store, settings, self.folders)
        self.quotas = QuotaService(self.store, settings, self.usage)
        self.lora_configs = LoraConfigService(self.store, self.folders, self.base_models, self.quotas)
        self._picture_work = PictureWork(settings)
        self.datasets = DatasetService(self.store, settings, self.folders, self._picture_work, self.quotas)
        self.dataset_images = DatasetImageService(settings, self.datasets, self._picture_work, self.quotas)
        self.jobs = JobService(self.store, settings, self.folders, self.datasets, self.base_models, self.quotas)
        self.job_runs = JobRunService(self.store, self.folders, self._picture_work, self.quotas)
        self.job_log = JobLogService(self.store, settings, self.folders, self._picture_work)
        self.pre_flights = PreFlightService(self.store, settings, self.datasets, self.folders, self._picture_work)
        self.event_streams = EventStreams(
            self.store, poll_seconds=settings.poll_seconds, per_tenant=settings.event_streams_per_tenant
        )
        self.keys = KeyService(self.store)
        self.cleanup = CleanupService(self.store, settings, self.folders)
        self.cluster = ClusterService(self.store, settings)
        self._maintenance = Maintenance(self.store, settings, self.datasets, keys=self.keys, cleanup=self.cleanup)
        self.health = HealthService(self.store, settings, needs_worker=needs_worker)

    async def open(self) -> None:
        """Check the database, and start the maintenance.

        Raises:
            SchemaError: its schema is not of this version.
            StoreError: it does not answer.
        """
        await self.store.database.check()
        self._maintenance.start()

    async def close(self) -> None:
        """End event streams first, then let go of everything."""
        await self.event_streams.close()
        await self._maintenance.stop()
        await self.datasets.inspections.close()
        await self.usage.close()
        await self._picture_work.close()
        await self.health.close()
        await self.store.database.close()
