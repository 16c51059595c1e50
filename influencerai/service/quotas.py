"""Quotas: how much a tenant may have and use, checked in the transaction that would use more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from influencerai.domain.usage import QuotaName
from influencerai.errors import InfluencerAIError, QuotaError, TooLargeError, TooManyError, quota_use
from influencerai.service.quota_limits import QuotaLimits
from influencerai.service.usage import UsageService, check_tenant
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.ids import new_id

_GIB, _MIB = 2**30, 2**20
_RESERVED_SECONDS = 120.0
"""So long the reservation of a server that has died counts."""
_NOUNS: Final[dict[QuotaName, str]] = {"datasets": "dataset", "configs": "lora_config"}
_REMEDIES: Final[dict[QuotaName, str]] = {
    "datasets": "Delete datasets that are not needed any more, or ask the operator for more.",
    "configs": "Delete configurations that are not needed any more, or ask the operator for more.",
    "storedGib": "Delete jobs, datasets or files that are not needed any more, or ask the operator for more.",
}


@dataclass(kw_only=True)
class UploadCharge:
    """Bytes that an upload is charged; its writer sets them."""

    written: int = 0
    """Bytes that are in the tenant's folder in the end."""


class QuotaService:
    """Refuses what goes beyond a limit."""

    def __init__(self, store: Store, settings: Settings, usage: UsageService) -> None:
        self._store = store
        self._settings = settings
        self._limits = QuotaLimits(settings)
        self._usage = usage

    async def check_new(self, transaction: Transaction, tenant: str, name: Literal["datasets", "configs"]) -> None:
        """Refuse one more dataset or configuration than the tenant may have.

        Raises:
            QuotaError: names the quota, what is used and the limit.
        """
        limit = (await self._limits.of(transaction, tenant))[name].value
        if limit is not None:
            await transaction.lock_tenant(tenant)
            used = await transaction.counts.total(tenant, _NOUNS[name])
            if used >= limit:
                raise _refusal(name, used, limit)

    async def check_new_job(self, transaction: Transaction, tenant: str) -> None:
        """Refuse one more job than the tenant may have active, submit in a day, pay for or store; else count it.

        Raises:
            TooManyError: it may be submitted later.
            QuotaError: nothing more may be stored.
        """
        await transaction.lock_tenant(tenant)
        limits = {name: limit.value for name, limit in (await self._limits.of(transaction, tenant)).items()}
        if (limit := limits["activeJobs"]) is not None:
            active = await transaction.jobs.active(tenant)
            if active >= limit:
                text = f"There are {active} active jobs, which is the limit"
                remedy = "Wait until one has ended, or cancel one."
                raise _later("activeJobs", active, limit, text, retry_after=30, remedy=remedy)
        now = await transaction.usage.time()
        if (limit := limits["jobsPerDay"]) is not None:
            today = await transaction.usage.submitted_today(tenant)
            if today >= limit:
                text, seconds = f"{today} jobs were submitted today, which is the limit", _seconds_to_tomorrow(now)
                remedy = "Wait until midnight (UTC), or ask the operator for more."
                raise _later("jobsPerDay", today, limit, text, retry_after=seconds, remedy=remedy)
        if (limit := limits["gpuHoursPerMonth"]) is not None:
            hours = round(await transaction.usage.device_seconds(tenant, this_month=True) / 3600, 3)
            if hours >= limit:
                text, seconds = "The GPU-hours of this month are used up", _seconds_to_next_month(now)
                remedy = "Wait until the next month (UTC), or ask the operator for more."
                raise _later("gpuHoursPerMonth", hours, limit, text, retry_after=seconds, remedy=remedy)
        if (limit := limits["storedGib"]) is not None:
            stored = await transaction.usage.stored_bytes(tenant)
            if stored >= limit * _GIB:
                raise _refusal("storedGib", stored / _GIB, limit)
        await transaction.usage.count_submission(tenant)

    async def freshen(self, tenant: str, *, adding: int = 0) -> None:
        """Measure the tenant's files where that may decide whether more can be stored; outside of transactions."""
        async with self._store.read() as transaction:
            limit = (await self._limits.of(transaction, tenant))["storedGib"].value
        if limit is not None:
            await self._usage.freshen(tenant, limit=limit * _GIB, adding=adding)

    async def upload_limit(self, tenant: str) -> int:
        """Bytes that the tenant's next upload may bring.

        Raises:
            QuotaError: nothing more may be stored.
        """
        await self.freshen(tenant)
        async with self._store.read() as transaction:
            limits = await self._limits.of(transaction, tenant)
            stored = await transaction.usage.taken_bytes(tenant)
        most = self._settings.max_upload_mib * _MIB
        if (largest := limits["uploadMib"].value) is not None:
            most = min(most, int(largest * _MIB))
        if (limit := limits["storedGib"].value) is not None:
            if stored >= limit * _GIB:
                raise _refusal("storedGib", stored / _GIB, limit)
            most = min(most, int(limit * _GIB) - stored)
        return most

    @asynccontextmanager
    async def uploading(self, tenant: str, size: int) -> AsyncIterator[UploadCharge]:
        """Reserve `size` bytes for an upload until the end of the block; then what it has written is charged.

        Args:
            tenant: whose upload it is.
            size: the most that it may write, unpacked.

        Raises:
            TooLargeError: one upload may not have so many.
            QuotaError: so many are not left.
        """
        await self.freshen(tenant, adding=size)
        id = new_id()
        async with self._store.write() as transaction:
            limits = await self._limits.of(transaction, tenant)
            if (largest := limits["uploadMib"].value) is not None and size > largest * _MIB:
                raise TooLargeError(
                    f"The upload has {_number(size / _MIB)} MiB unpacked, one may have {_number(largest)}",
                    quota=quota_use("uploadMib", round(size / _MIB, 3), largest),
                    remedy="Upload fewer pictures at once.",
                )
            if (limit := limits["storedGib"].value) is not None:
                await transaction.lock_tenant(tenant)
                used = await transaction.usage.taken_bytes(tenant)
                if used + size > limit * _GIB:
                    raise _refusal("storedGib", used / _GIB, limit, wanted=size / _GIB)
            await transaction.reservations.hold(id, tenant, size=size, seconds=_RESERVED_SECONDS)
        charge = UploadCharge()
        renewing = asyncio.create_task(self._renew(id, tenant, size))
        try:
            yield charge
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
            async with self._store.write() as transaction:
                await transaction.reservations.release(id)
                if charge.written:
                    await transaction.usage.add_bytes(tenant, charge.written)

    async def _renew(self, id: str, tenant: str, size: int) -> None:
        """Keep a reservation from expiring while its upload goes on."""
        while True:
            await asyncio.sleep(_RESERVED_SECONDS / 3)
            with suppress(InfluencerAIError):
                async with self._store.write() as transaction:
                    await transaction.reservations.hold(id, tenant, size=size, seconds=_RESERVED_SECONDS)

    async def change(self, tenant: str, changes: Mapping[QuotaName, float | str | None]) -> None:
        """Set quotas of one tenant: a number, None for no limit, or "default" for the setting's.

        Raises:
            ValidationError: no tenant can have this id.
        """
        check_tenant(tenant)
        async with self._store.write() as transaction:
            await transaction.quotas.change(tenant, changes)


def _refusal(name: QuotaName, used: float, limit: float, *, wanted: float = 0) -> QuotaError:
    more = f", and this takes {_number(wanted)} more" if wanted else ""
    return QuotaError(
        f"The quota {name} is used up: {_number(used)} of {_number(limit)}{more}",
        quota=quota_use(name, round(used, 3), limit),
        remedy=_REMEDIES[name],
    )


def _later(name: QuotaName, used: float, limit: float, text: str, *, retry_after: int, remedy: str) -> TooManyError:
    return TooManyError(
        f"{text} (quota {name}: {_number(used)} of {_number(limit)})",
        quota=quota_use(name, used, limit),
        retry_after=retry_after,
        remedy=remedy,
    )


def _number(value: float) -> str:
    return f"{round(value, 3):g}" if value < 10**6 else f"{value:.0f}"


def _seconds_to_tomorrow(now: datetime) -> int:
    return 86400 - (now.hour * 3600 + now.minute * 60 + now.second)


def _seconds_to_next_month(now: datetime) -> int:
    first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return int((first - now) / timedelta(seconds=1)) + 1
