"""Builds the training request of an attempt from the job, its tenant's folders and this machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from influencerai.domain import TrainingSpec
from influencerai.files.tenant_folders import TenantFolders
from influencerai.job_process.messages import TrainingRequest
from influencerai.scheduling.placement import Allocation
from influencerai.scheduling.resource_options import ResourceOption
from influencerai.settings import Settings
from influencerai.store.job_rows import StoredJob
from influencerai.store.queue import Lease
from influencerai.training_plan.execution import DeviceKind


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The allocation of an attempt on a node of the cluster, and its resource option."""

    allocation: Allocation
    option: ResourceOption
    device: Literal["cpu", "cuda"]
    visible_devices: str | None = None
    accelerator: str | None = None
    """Name of the GPUs, as the cluster calls them."""

    @property
    def kind(self) -> DeviceKind:
        """What it was placed for; pretended GPUs count as such, though a CPU does their work."""
        return "cuda" if self.allocation.devices else "cpu"


def make_request(
    lease: Lease,
    job: StoredJob,
    *,
    published: Iterable[str],
    settings: Settings,
    placement: Placement | None = None,
) -> TrainingRequest:
    """The order for one attempt at `job`, with the names of its published files; makes the tenant's root.

    Raises:
        InfluencerAIError: the root cannot be made.
    """
    folders, tenant, snapshot, plan = TenantFolders(settings), lease.tenant_id, job.snapshot, job.plan
    placed: dict[str, Any] = {"device": settings.device, "threads": settings.usable_threads}
    if placement is not None:
        placed = {
            "device": placement.device,
            "threads": settings.threads or max(1, round(placement.allocation.cpus)),
            "visible_devices": placement.visible_devices,
            "world_size": max(1, len(placement.allocation.devices)),
            "micro_batch": placement.option.micro_batch,
            "gradient_checkpointing": placement.option.gradient_checkpointing,
        }
    return TrainingRequest(
        job_id=lease.job_id,
        root=folders.make(tenant),
        dataset=snapshot.dataset.path,
        config=snapshot.config,
        output_dir=job.output_dir,
        run_dir=folders.run_dir(tenant, lease.job_id),
        blobs_dir=folders.blobs_dir(tenant),
        spec=None if plan is None else TrainingSpec.restore(plan["spec"]),
        warnings=() if plan is None else tuple(plan["warnings"]),
        published=tuple(published),
        models_dirs=settings.models_dirs,
        cache_dir=settings.cache_dir,
        cache_max_bytes=int(settings.cache_max_gib * 2**30),
        max_image_pixels=settings.max_image_pixels,
        allow_downloads=settings.serves_downloads,
        as_path=False,
        deterministic=settings.deterministic,
        **placed,
    )
