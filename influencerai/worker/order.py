"""The order of an attempt: what a training's process is told of the job, its tenant's folders and this machine."""

from __future__ import annotations

from collections.abc import Iterable

from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.domain.attempt import AttemptOrder
from influencerai.settings import Settings
from influencerai.store.jobs import StoredJob
from influencerai.store.queue import Lease
from influencerai.tenant_folders import TenantFolders


def make_order(lease: Lease, job: StoredJob, *, published: Iterable[str], settings: Settings) -> AttemptOrder:
    """The order for one attempt at `job`, with the names of its published files; makes the tenant's root.

    Raises:
        InfluencerAIError: the root cannot be made.
    """
    folders, tenant, snapshot, plan = TenantFolders(settings), lease.tenant_id, job.snapshot, job.plan
    return AttemptOrder(
        job_id=lease.job_id,
        root=folders.make(tenant),
        dataset=snapshot["dataset"]["path"],
        config=LoraConfig.parse(snapshot["config"]),
        output_dir=job.output_dir,
        run_dir=folders.run_dir(tenant, lease.job_id),
        blobs_dir=folders.blobs_dir(tenant),
        spec=None if plan is None else TrainingSpec.model_validate(plan["spec"]),
        warnings=() if plan is None else tuple(plan["warnings"]),
        published=tuple(published),
        models_dirs=settings.models_dirs,
        cache_dir=settings.cache_dir,
        cache_max_bytes=int(settings.cache_max_gib * 2**30),
        max_image_pixels=settings.max_image_pixels,
        allow_downloads=settings.serves_downloads,
        as_path=False,
        device=settings.device,
        threads=settings.usable_threads,
        deterministic=settings.deterministic,
    )
