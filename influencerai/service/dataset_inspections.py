"""Dataset inspections: the folder of a dataset is inspected while its user waits, or in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from influencerai.dataset import DatasetReport, count_candidates, inspect_dataset
from influencerai.dataset.decoding import Decoding
from influencerai.domain.dataset import Dataset, DatasetDraft, DatasetStatus
from influencerai.errors import DatasetError, InfluencerAIError, NotFoundError, ValidationError
from influencerai.service.dataset_folders import DatasetFolders, MissingFolderError
from influencerai.service.picture_work import PictureWork
from influencerai.service.shared_work import SharedWork
from influencerai.settings import Settings
from influencerai.store import Store

INSPECTED_AT_ONCE = 500
"""Images of a folder that are inspected while its user waits; larger folders are inspected in the background."""
_log = logging.getLogger(__name__)


class DatasetInspections:
    """Inspections of all tenants' datasets, and the statuses and reports that follow from them."""

    def __init__(self, store: Store, settings: Settings, folders: DatasetFolders, work: PictureWork) -> None:
        self._store = store
        self._max_pixels = settings.max_image_pixels
        self._folders = folders
        self._work = work
        self._shared = SharedWork[tuple[Dataset, DatasetReport]]()
        self._in_progress: dict[str, asyncio.Task[None]] = {}
        """Inspections in the background, by dataset."""
        self._is_closed = False

    async def inspect_new(self, tenant: str, draft: DatasetDraft) -> tuple[DatasetStatus, DatasetReport | None]:
        """Status and report of a new dataset's folder; of a large folder the status alone."""
        if status := await self._status_before_inspection(tenant, draft.path):
            return status, None
        report = await self._inspect(tenant, draft.path, draft.meta)
        return report.status, report

    async def inspect_again(self, tenant: str, dataset: Dataset, *, always: bool = False) -> Dataset:
        """The dataset with the status that its folder has now; a status that was set by hand meanwhile stays.

        With `always` the report is written again even if the status is unchanged.
        """
        try:
            self._folders.check(tenant, dataset.path)
            if status := await self._status_before_inspection(tenant, dataset.path):
                if status == dataset.status and not always:
                    return dataset
                changed = await self._keep(dataset, status=status, report=None)
                if changed.status == "processing":
                    self.inspect_later(changed)
                return changed
            changed, _ = await self.inspect(dataset)
        except (DatasetError, ValidationError) as error:
            _log.warning("The dataset cannot be inspected: %s", error, extra={"dataset_id": dataset.id})
            return await self._keep(dataset, status="failed", report=None)
        return changed

    async def inspect(self, dataset: Dataset) -> tuple[Dataset, DatasetReport]:
        """Inspect the folder and store the report. Concurrent calls for one dataset share an inspection."""

        async def run() -> tuple[Dataset, DatasetReport]:
            async with self._store.read() as transaction:
                now = await transaction.datasets.get(dataset.tenant_id, dataset.id)
            if now is None:
                raise dataset_not_found(dataset.id)
            report = await self._inspect(now.tenant_id, now.path, now.meta)
            return await self._keep(now, status=report.status, report=report), report

        return await self._shared.run(dataset.id, run)

    def inspect_later(self, dataset: Dataset) -> None:
        """Inspect a large folder in the background."""

        async def run() -> None:
            with suppress(NotFoundError):  # deleted in the meantime
                await self.inspect(dataset)

        self.in_background(dataset.id, run)

    def in_background(self, id: str, work: Callable[[], Awaitable[None]]) -> None:
        """Start `work` on a dataset, unless some is in progress; errors are logged."""

        async def guarded() -> None:
            try:
                await work()
            except InfluencerAIError as error:
                _log.warning("The dataset cannot be inspected: %s", error, extra={"dataset_id": id})
            except Exception:
                _log.exception("The inspection of the dataset failed.", extra={"dataset_id": id})
            finally:
                self._in_progress.pop(id, None)

        if id not in self._in_progress and not self._is_closed:
            self._in_progress[id] = asyncio.create_task(guarded())

    def cancel(self, id: str) -> None:
        """Cancel the inspection of a dataset in the background."""
        if task := self._in_progress.pop(id, None):
            task.cancel()

    async def resume(self) -> None:
        """Inspect the large folders whose inspection an earlier service did not finish."""
        async with self._store.read() as transaction:
            found = await transaction.datasets.unseen()
        for dataset in found:
            self.inspect_later(dataset)

    async def close(self) -> None:
        """Cancel inspections in the background; the next service resumes them."""
        self._is_closed = True
        for task in self._in_progress.values():
            task.cancel()
        await asyncio.gather(*self._in_progress.values(), return_exceptions=True)

    async def _status_before_inspection(self, tenant: str, path: str) -> DatasetStatus | None:
        """The status of a folder that is missing, or too large to be inspected while its user waits."""

        def count(decoding: Decoding) -> int | None:
            with self._folders.opened(tenant, path) as folder:
                return count_candidates(folder)

        try:
            found = await self._work.small(tenant, count)
        except MissingFolderError:
            return "pending"
        return "processing" if (found or 0) > INSPECTED_AT_ONCE else None

    async def _inspect(self, tenant: str, path: str, meta: Mapping[str, Any]) -> DatasetReport:
        def inspect(decoding: Decoding) -> DatasetReport:
            with self._folders.opened(tenant, path) as folder:
                found = inspect_dataset(
                    folder,
                    trigger_word=trigger_word(meta),
                    max_pixels=self._max_pixels,
                    decoding=decoding,
                )
            return found.model_copy(update={"folder": ""})

        return await self._work.long(tenant, inspect)

    async def _keep(self, dataset: Dataset, *, status: DatasetStatus, report: DatasetReport | None) -> Dataset:
        """Store status and report; a status that was set by hand meanwhile stays."""
        document = None if report is None else report.to_wire()
        async with self._store.write() as transaction:
            changed = await transaction.datasets.edit(
                dataset.tenant_id,
                dataset.id,
                lambda now: {"report": document, **({"status": status} if now.status == dataset.status else {})},
            )
        if changed is None:
            raise dataset_not_found(dataset.id)
        return changed


def trigger_word(meta: Mapping[str, Any]) -> str | None:
    """The trigger word in a dataset's meta; None where it is absent or no text."""
    word = meta.get("triggerWord")
    return word.strip() or None if isinstance(word, str) else None


def dataset_not_found(id: str) -> NotFoundError:
    """The error for a dataset that the tenant does not have."""
    return NotFoundError.of("Dataset", id)
