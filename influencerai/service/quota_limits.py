"""Quota limits: what holds for a tenant, by its own quotas and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from influencerai.domain.usage import QUOTAS, QuotaName
from influencerai.settings import Settings
from influencerai.store import Transaction


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The limits of one tenant; None is no limit."""

    value: float | None
    source: Literal["default", "tenant"] = "default"


class QuotaLimits:
    """A tenant's own quotas, and for the others the settings', which hold where requests are limited."""

    def __init__(self, settings: Settings) -> None:
        self._defaults: dict[QuotaName, float | None] = dict.fromkeys(QUOTAS)
        if settings.limits_requests:
            self._defaults |= {
                "datasets": settings.datasets_per_tenant,
                "configs": settings.configs_per_tenant,
                "storedGib": settings.stored_gib_per_tenant,
                "activeJobs": settings.active_jobs_per_tenant,
                "jobsPerDay": settings.jobs_per_day_per_tenant,
                "uploadMib": settings.max_upload_mib,
                "gpuHoursPerMonth": settings.gpu_hours_per_month_per_tenant,
            }

    async def of(self, transaction: Transaction, tenant: str) -> dict[QuotaName, Limit]:
        """Every limit of the tenant."""
        own = await transaction.quotas.of(tenant)
        return {
            name: Limit(value=own[name], source="tenant") if name in own else Limit(value=value)
            for name, value in self._defaults.items()
        }
