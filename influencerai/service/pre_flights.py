"""Pre-flights: what a job would do, need and fail on, with nothing stored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from influencerai.dataset.decoding import Decoding
from influencerai.domain import LoraConfig
from influencerai.domain.dataset import Dataset
from influencerai.domain.job import JobDraft
from influencerai.errors import ValidationError
from influencerai.files.tenant_folders import TenantFolders
from influencerai.preflight import AssumedDevice, Preflight, cluster_device, preflight
from influencerai.service.dataset_folders import MissingFolderError
from influencerai.service.datasets import DatasetService
from influencerai.service.feasibility import impossibility
from influencerai.service.jobs import resolve_draft, with_trigger_word
from influencerai.service.picture_work import PictureWork
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.nodes import NodeState

_NOWHERE = Path(os.devnull)
"""Nothing can lie below it: a report on such a folder says that it is missing."""


class PreFlightService:
    """Checks of one tenant's drafts, per call."""

    def __init__(
        self, store: Store, settings: Settings, datasets: DatasetService, folders: TenantFolders, work: PictureWork
    ) -> None:
        self._store = store
        self._settings = settings.model_copy(update={"allow_downloads": settings.serves_downloads})
        self._datasets = datasets
        self._folders = folders
        self._work = work

    async def check(self, tenant: str, draft: JobDraft) -> Preflight:
        """The report on a draft.

        Raises:
            NotFoundError: dataset or configuration are not there.
            ValidationError: no configuration is named, and the tenant has no default one.
        """
        async with self._store.read() as transaction:
            dataset, _, config = await resolve_draft(transaction, tenant, draft, self._folders)
            speed = await self._speed(transaction, tenant, config)
            nodes = await transaction.nodes.seen(within_seconds=self._settings.lease_seconds)
        device = self._device(nodes)
        impossible = await impossibility(config, nodes, self._settings)

        def check(decoding: Decoding) -> Preflight:
            with ExitStack() as stack:
                try:
                    folder = stack.enter_context(self._datasets.opened(dataset))
                except MissingFolderError:
                    folder = _NOWHERE / dataset.path
                return preflight(
                    with_trigger_word(config, dataset),
                    folder,
                    settings=self._settings,
                    as_path=False,
                    device=device,
                    throughput=speed,
                    decoding=decoding,
                )

        found = await self._work.long(tenant, check)
        return found.model_copy(
            update={
                "errors": tuple(self._shown(text, found.dataset.folder, dataset) for text in found.errors),
                "warnings": (
                    *([impossible] if impossible else ()),
                    *(self._shown(text, found.dataset.folder, dataset) for text in found.warnings),
                ),
                "dataset": found.dataset.model_copy(update={"folder": dataset.path}),
            }
        )

    def _shown(self, text: str, folder: str, dataset: Dataset) -> str:
        """A sentence without the server's own folders."""
        return self._folders.shown(text.replace(folder, dataset.path), tenant=dataset.tenant_id)

    def _device(self, seen: Sequence[NodeState]) -> AssumedDevice | None:
        """A GPU of the cluster, where its nodes have some that may be used; None leaves it to this machine."""
        if self._settings.device == "cpu":
            return None
        return cluster_device([state.node for state in seen if state.problem is None and not state.is_draining])

    async def _speed(self, transaction: Transaction, tenant: str, config: LoraConfig) -> float | None:
        """Images per second of the tenant's last completed job that trained alike."""
        alike = (config.model_name, config.resolution, config.batch_size)
        for stored in await transaction.jobs.last_completed(tenant):
            with suppress(ValidationError):  # of a job that an earlier version has trained
                other = stored.snapshot.config
                if (other.model_name, other.resolution, other.batch_size) == alike:
                    return await transaction.events.speed(stored.job.id)
        return None
