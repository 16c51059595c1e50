"""Usage: quotas of a tenant, and how much of each it has used."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from influencerai.domain.page import PageQuery, QueryBoolean, QueryText
from influencerai.domain.wire import Number, Timestamp, WireModel

QuotaName = Literal["datasets", "configs", "storedGib", "activeJobs", "jobsPerDay", "uploadMib", "gpuHoursPerMonth"]
QUOTAS: Final[tuple[QuotaName, ...]] = get_args(QuotaName)
_Limit = Annotated[Number, Field(ge=0, le=10**12)] | Literal["default"] | None


class QuotaUse(WireModel):
    """One quota, and how much of it is used."""

    name: QuotaName
    used: Number | None = Field(default=None, description="Null where nothing adds up: the size of one upload.")
    limit: Number | None = Field(default=None, description="Null: no limit.")
    source: Literal["default", "tenant"] = Field(description="Whether a setting or a quota of the tenant says so.")


class DiskUsage(WireModel):
    """Bytes of a tenant's files; a file with several names counts once."""

    datasets: int = Field(description="Folders of registered datasets.")
    runs: int = Field(description="States, logs and copies of pictures of jobs.")
    loras: int = Field(description="Output folders: LoRA files and samples.")
    other: int = Field(description="The rest of the tenant's root; 0 in development, where all share one.")
    total: int
    measured_at: Timestamp


class Usage(WireModel):
    """Usage and quotas of one tenant."""

    tenant_id: str
    jobs: dict[str, int] = Field(description="Jobs by status; cancelled ones apart from failed ones.")
    datasets: int
    configs: int
    device_seconds: Number = Field(description="Seconds of devices (GPUs; without one, trainings on cores), ever.")
    device_seconds_this_month: Number = Field(description="The same since the month began, in UTC.")
    disk: DiskUsage | None = Field(default=None, description="As last measured; null before the first time.")
    quotas: tuple[QuotaUse, ...]


class UsageList(WireModel):
    """Usage and quotas of every tenant."""

    data: tuple[Usage, ...]
    cache_bytes: int = Field(
        description="Bytes of the cache of encoded pictures and captions, which all tenants share."
    )


class UsageQuery(WireModel):
    """How usage is read."""

    refresh: QueryBoolean = Field(default=False, description="Measure the disk first; one's own at most every 10 s.")


class QuotaChange(WireModel):
    """Quotas to set: a number, null for no limit, or "default" for the setting's. Absent ones stay."""

    datasets: _Limit = Field(default=None, description="Registered datasets.")
    configs: _Limit = Field(default=None, description="Configurations.")
    stored_gib: _Limit = Field(default=None, description="GiB of files.")
    active_jobs: _Limit = Field(default=None, description="Pending and running jobs.")
    jobs_per_day: _Limit = Field(default=None, description="Jobs submitted in a day, in UTC.")
    upload_mib: _Limit = Field(default=None, description="MiB of one upload.")
    gpu_hours_per_month: _Limit = Field(default=None, description="Hours of devices in a month, in UTC.")

    def changes(self) -> dict[QuotaName, float | Literal["default"] | None]:
        """The quotas that the change names."""
        named = {name: self.to_wire()[name] for name in self.by_wire_name(dict.fromkeys(self.model_fields_set))}
        return {name: named[name] for name in QUOTAS if name in named}


class AdminJobQuery(PageQuery):
    """Filters of the list of all tenants' jobs, newest first."""

    tenant: QueryText | None = Field(default=None, max_length=64, description="Only jobs of this tenant.")
    status: Literal["pending", "running", "completed", "failed", "cancelled"] | None = None
