"""Usage: what tenants have and have used, for themselves and for the operator."""

from __future__ import annotations

import asyncio
import time

from influencerai.domain.job import Job
from influencerai.domain.page import Page
from influencerai.domain.usage import QUOTAS, AdminJobQuery, QuotaName, QuotaUse, Usage, UsageList
from influencerai.errors import ValidationError
from influencerai.files.tenant_folders import TenantFolders, is_tenant
from influencerai.service.disk import folder_bytes, measure
from influencerai.service.fair_threads import FairThreads
from influencerai.service.quota_limits import QuotaLimits
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.fair_slots import OURS

_GIB = 2**30
_FRESH_SECONDS = 600.0
"""A measurement of the disk is used for so long, with what uploads have added since."""
_CACHE_SECONDS = 60.0
"""So long the bytes of the shared cache are shown as they were."""
_MOST_WAITING = 100
_REFUSING_SECONDS = 10.0
"""So fresh is the one by which something is refused: files may be gone since."""


class UsageService:
    """Jobs, device time and bytes of each tenant."""

    def __init__(self, store: Store, settings: Settings, folders: TenantFolders) -> None:
        self._store = store
        self._folders = folders
        self._cache_dir = settings.cache_dir
        self._limits = QuotaLimits(settings)
        self._threads = FairThreads("disk-usage", threads=2, per_tenant=1, waiting=_MOST_WAITING)
        """Of its own: large folders take long, and nothing else waits for them."""
        self._measuring: dict[str, asyncio.Task[None]] = {}
        self._cache_bytes: tuple[float, int] | None = None

    async def of(self, tenant: str, *, max_age: float | None = None) -> Usage:
        """What the tenant has, has used and may use; files that were measured `max_age` seconds ago are measured again.

        Raises:
            ValidationError: no tenant can have this id.
        """
        check_tenant(tenant)
        if max_age is not None:
            await self._measure_older(tenant, seconds=max_age)
        async with self._store.read() as transaction:
            return await self._usage(transaction, tenant)

    async def of_all(self, *, refresh: bool = False) -> UsageList:
        """The same of every tenant, by name, and the cache that they share."""
        async with self._store.read() as transaction:
            tenants = await transaction.usage.tenants()
        if refresh:
            for tenant in tenants:
                await self._measure(tenant)
        async with self._store.read() as transaction:
            found = [await self._usage(transaction, tenant) for tenant in tenants]
        return UsageList(data=tuple(found), cache_bytes=await self._measured_cache(refresh=refresh))

    async def close(self) -> None:
        """End all measurements."""
        for task in self._measuring.values():
            task.cancel()
        await asyncio.gather(*self._measuring.values(), return_exceptions=True)
        await self._threads.close()

    async def jobs(self, query: AdminJobQuery) -> Page[Job]:
        """A slice of all tenants' jobs."""
        async with self._store.read() as transaction:
            return await transaction.usage.jobs(query)

    async def freshen(self, tenant: str, *, limit: float, adding: int = 0) -> None:
        """Measure the tenant's files unless the last time was lately; a moment ago, if that time is over `limit`."""
        async with self._store.read() as transaction:
            taken = await transaction.usage.taken_bytes(tenant)
        is_over = taken >= limit or taken + adding > limit
        await self._measure_older(tenant, seconds=_REFUSING_SECONDS if is_over else _FRESH_SECONDS)

    async def _measure_older(self, tenant: str, *, seconds: float) -> None:
        async with self._store.read() as transaction:
            found = await transaction.usage.disk(tenant)
            now = await transaction.usage.time()
        if found is None or (now - found.measured_at).total_seconds() >= seconds:
            await self._measure(tenant)

    async def _usage(self, transaction: Transaction, tenant: str) -> Usage:
        records = transaction.usage
        disk = await records.disk(tenant)
        month = await records.device_seconds(tenant, this_month=True)
        jobs = await records.jobs_by_status(tenant)
        datasets = await transaction.counts.total(tenant, "dataset")
        configs = await transaction.counts.total(tenant, "lora_config")
        used: dict[QuotaName, float | None] = {
            "datasets": datasets,
            "configs": configs,
            "storedGib": None if disk is None else round(await records.stored_bytes(tenant) / _GIB, 3),
            "activeJobs": jobs["pending"] + jobs["running"],
            "jobsPerDay": await records.submitted_today(tenant),
            "uploadMib": None,
            "gpuHoursPerMonth": round(month / 3600, 3),
        }
        limits = await self._limits.of(transaction, tenant)
        quotas = [
            QuotaUse(name=name, used=used[name], limit=limits[name].value, source=limits[name].source)
            for name in QUOTAS
        ]
        return Usage(
            tenant_id=tenant,
            jobs=jobs,
            datasets=datasets,
            configs=configs,
            device_seconds=round(await records.device_seconds(tenant), 1),
            device_seconds_this_month=round(month, 1),
            disk=disk,
            quotas=tuple(quotas),
        )

    async def _measure(self, tenant: str) -> None:
        """One measurement per tenant at a time; whoever asks meanwhile waits for it."""
        if tenant not in self._measuring:
            task = asyncio.create_task(self._measure_now(tenant))
            self._measuring[tenant] = task
            task.add_done_callback(lambda _: self._measuring.pop(tenant, None))
        await asyncio.shield(self._measuring[tenant])

    async def _measure_now(self, tenant: str) -> None:
        async with self._store.read() as transaction:
            added = await transaction.usage.added_bytes(tenant)
            files = await transaction.usage.files(tenant)
        parts = await self._threads.run(tenant, lambda check: measure(self._folders, tenant, files, check=check))
        async with self._store.write() as transaction:
            await transaction.usage.note_disk(tenant, parts, seen=added)

    async def _measured_cache(self, *, refresh: bool) -> int:
        """Bytes of the cache, which many requests do not walk again and again."""
        now = time.monotonic()
        if self._cache_bytes is None or refresh or now - self._cache_bytes[0] >= _CACHE_SECONDS:
            found = await self._threads.run(OURS, lambda check: folder_bytes(self._cache_dir, check=check))
            self._cache_bytes = time.monotonic(), found
        return self._cache_bytes[1]


def check_tenant(tenant: str) -> None:
    """Refuse what can be no tenant's id.

    Raises:
        ValidationError: it is none.
    """
    if not is_tenant(tenant):
        raise ValidationError(field_errors={"tenant": ["Input should be 1 to 64 letters, digits and _-."]})
