"""Datasets: registered folders of images, and what was seen in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from influencerai.domain.dataset import Dataset, DatasetDraft, DatasetQuery, DatasetStatus
from influencerai.domain.page import Page
from influencerai.domain.training_options import TrainingOptions
from influencerai.errors import DatasetError, InUseError, NotFoundError, RefusedError, ValidationError
from influencerai.imageset import ImageReport, ImageSetReport, count_candidates, inspect_imageset
from influencerai.imageset.report import CaptionSource
from influencerai.imageset.uploaded_files import remove_uploaded
from influencerai.service.answer import Answer, answer_once
from influencerai.service.lora_configs import users
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey
from influencerai.tenant_folders import TenantFolders

LOOKED_AT_ONCE = 500
"""Images of a folder that are looked at while its user waits."""
_NAMES_COMPARED = 100
"""Of a dataset's meta: comparing each of the 60,000 that a body may hold would keep everybody waiting for seconds."""
_log = logging.getLogger(__name__)


class DatasetService:
    """One tenant's datasets per call."""

    def __init__(self, store: Store, settings: Settings, folders: TenantFolders) -> None:
        self._store = store
        self._settings = settings
        self._folders = folders
        self._looking: dict[str, asyncio.Task[None]] = {}
        """Large folders that are being looked at, by dataset."""

    async def create(
        self, tenant: str, draft: DatasetDraft, *, unknown: tuple[str, ...] = (), request: RequestKey | None = None
    ) -> Answer[Dataset]:
        """Register a folder; its status says what was found there.

        Raises:
            ValidationError: the path leaves the tenant's root.
        """
        folder = self._folders.resolve(tenant, draft.path)
        status, report = await self._look(folder, draft.meta)
        warnings = (*unknown, *_misspelt(draft.meta), *_warnings(status, report, draft))

        async def make(transaction: Transaction) -> Answer[Dataset]:
            found = await transaction.datasets.add(
                tenant, draft, status=status, report=None if report is None else report.to_wire()
            )
            return Answer(value=found, warnings=warnings)

        answer = await answer_once(self._store, tenant, request, Dataset, make)
        if answer.value.status == "processing":
            self._look_later(tenant, answer.value)
        return answer

    async def list(self, tenant: str, query: DatasetQuery) -> Page[Dataset]:
        """A slice of the tenant's datasets."""
        async with self._store.read() as transaction:
            return await transaction.datasets.page(tenant, query)

    async def get(self, tenant: str, id: str) -> Dataset:
        """One dataset; one whose folder was not there is looked at again.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._store.read() as transaction:
            found = await transaction.datasets.get(tenant, id)
        if found is None:
            raise _not_found(id)
        return await self.look_again(tenant, found) if found.status == "pending" else found

    async def set_status(self, tenant: str, id: str, status: DatasetStatus, *, actor: str) -> Dataset:
        """Set the status by hand.

        Raises:
            NotFoundError: there is no such dataset.
        """
        return await self._edit(
            tenant, id, lambda dataset: {"status": status, "meta": {**dataset.meta, "lastUpdatedBy": actor}}
        )

    async def update(self, tenant: str, id: str, *, meta: Mapping[str, Any] | None) -> Dataset:
        """Replace the meta, where one is given.

        Raises:
            NotFoundError: there is no such dataset.
        """
        return await self._edit(tenant, id, lambda _: {} if meta is None else {"meta": dict(meta)})

    async def report(self, tenant: str, id: str, *, refresh: bool = False) -> ImageSetReport:
        """What was seen in the folder; with `refresh`, or where it was never seen, it is looked at now.

        Raises:
            NotFoundError: there is no such dataset.
            DatasetError: the folder is not there.
        """
        dataset = await self.get(tenant, id)
        if not refresh:
            async with self._store.read() as transaction:
                if document := await transaction.datasets.report(tenant, id):
                    return ImageSetReport.model_validate(document)
        folder = self._folders.resolve(tenant, dataset.path)
        if not await asyncio.to_thread(folder.is_dir):
            raise DatasetError(f"There is no folder {dataset.path}.", remedy="Make it, or upload images.")
        report = await asyncio.to_thread(self._inspect, folder, dataset.meta)
        await self._keep(tenant, dataset, status=report.status, report=report)
        return report

    async def delete(self, tenant: str, id: str) -> None:
        """Forget a dataset that no active job uses, with the files that came through the server.

        Raises:
            NotFoundError: there is no such dataset.
            RefusedError: pending or running jobs use it.
        """
        async with self._store.write() as transaction:
            dataset = await transaction.datasets.get(tenant, id)
            if dataset is None:
                raise _not_found(id)
            try:
                await transaction.datasets.remove(tenant, id)
            except InUseError as error:
                raise RefusedError(f"Cannot delete dataset: {users(error.jobs)} using it") from error
            is_shared = await transaction.datasets.has_path(tenant, dataset.path)
        if task := self._looking.pop(id, None):
            task.cancel()
        if not is_shared:
            with suppress(ValidationError):  # a link that leads out of the root by now: nothing there is ours
                await asyncio.to_thread(remove_uploaded, self._folders.resolve(tenant, dataset.path))

    async def look_again(self, tenant: str, dataset: Dataset, *, always: bool = False) -> Dataset:
        """The dataset with the status that its folder has now; what somebody set in between stays.

        With `always` the report is written again even where the status is what it was.
        """
        try:
            folder = self._folders.resolve(tenant, dataset.path)
            status, report = await self._look(folder, dataset.meta)
        except (DatasetError, ValidationError) as error:
            _log.warning("The dataset cannot be looked at: %s", error, extra={"dataset_id": dataset.id})
            status, report = "failed", None
        if status == dataset.status and not always:
            return dataset
        changed = await self._keep(tenant, dataset, status=status, report=report)
        if changed.status == "processing":
            self._look_later(tenant, changed)
        return changed

    async def note_caption(self, tenant: str, id: str, image: str, text: str) -> ImageReport:
        """Write into the report that an image has this caption now.

        Raises:
            NotFoundError: there is no such dataset.
        """
        source: CaptionSource = "txt" if text.strip() else "none"
        noted = {"caption": " ".join(text.split()), "caption_source": source}
        await self.report(tenant, id)  # so that there is one
        async with self._store.write() as transaction:
            document = await transaction.datasets.report(tenant, id, lock=True)  # another caption may be written now
            if document is None:
                raise _not_found(id)
            report = ImageSetReport.model_validate(document)
            images = tuple(item.model_copy(update=noted) if item.path == image else item for item in report.images)
            changed = report.model_copy(update={"images": images}).to_wire()
            await transaction.datasets.edit(tenant, id, lambda _: {"report": changed})
        return next((item for item in images if item.path == image), ImageReport(path=image, **noted))

    async def resume_looking(self) -> None:
        """Look at the large folders that a service was looking at when it ended."""
        async with self._store.read() as transaction:
            found = await transaction.datasets.unseen()
        for dataset in found:
            self._look_later(dataset.tenant_id, dataset)

    async def close(self) -> None:
        """Stop looking at large folders; they are looked at again when the service starts."""
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    def folder(self, tenant: str, dataset: Dataset) -> Path:
        """Where the dataset's images lie."""
        return self._folders.resolve(tenant, dataset.path)

    async def _look(self, folder: Path, meta: Mapping[str, Any]) -> tuple[DatasetStatus, ImageSetReport | None]:
        """The status that a folder deserves; a large one is left for later."""
        count = await asyncio.to_thread(count_candidates, folder)
        if count is None:
            return "pending", None
        if count > LOOKED_AT_ONCE:
            return "processing", None
        report = await asyncio.to_thread(self._inspect, folder, meta)
        return report.status, report

    def _look_later(self, tenant: str, dataset: Dataset) -> None:
        async def look() -> None:
            try:
                folder = self._folders.resolve(tenant, dataset.path)
                report = await asyncio.to_thread(self._inspect, folder, dataset.meta)
                await self._keep(tenant, dataset, status=report.status, report=report)
            except NotFoundError:
                pass  # deleted in the meantime
            except Exception:
                _log.exception("The dataset could not be looked at.", extra={"dataset_id": dataset.id})
            finally:
                self._looking.pop(dataset.id, None)

        if dataset.id not in self._looking:
            self._looking[dataset.id] = asyncio.create_task(look())

    def _inspect(self, folder: Path, meta: Mapping[str, Any]) -> ImageSetReport:
        return inspect_imageset(
            folder, trigger_word=trigger_word(meta), max_pixels=self._settings.max_image_pixels
        ).model_copy(update={"folder": ""})

    async def _keep(
        self, tenant: str, dataset: Dataset, *, status: DatasetStatus, report: ImageSetReport | None
    ) -> Dataset:
        """Write what was seen; a status that was set by hand in between stays."""
        document = None if report is None else report.to_wire()
        return await self._edit(
            tenant,
            dataset.id,
            lambda now: {"report": document, **({"status": status} if now.status == dataset.status else {})},
        )

    async def _edit(self, tenant: str, id: str, change: Any) -> Dataset:
        async with self._store.write() as transaction:
            changed = await transaction.datasets.edit(tenant, id, change)
        if changed is None:
            raise _not_found(id)
        return changed


def trigger_word(meta: Mapping[str, Any]) -> str | None:
    """The word of a dataset's meta, which is free: anything that is no text is none."""
    word = meta.get("triggerWord")
    return word.strip() or None if isinstance(word, str) else None


def _not_found(id: str) -> NotFoundError:
    return NotFoundError.of("Dataset", id)


def _misspelt(meta: Mapping[str, Any]) -> list[str]:
    """Warnings about what was probably meant as the trigger word: meta is free, so it is kept as it is."""
    looked_at = [name for name in islice(meta, _NAMES_COMPARED) if name != "triggerWord"]
    near = [name for name in looked_at if TrainingOptions.nearest_field(name) == "triggerWord"]
    return [f"meta.{name} is kept and not read: did you mean 'triggerWord'?" for name in near]


def _warnings(status: DatasetStatus, report: ImageSetReport | None, draft: DatasetDraft) -> list[str]:
    if status == "pending":
        return [f"There is no folder {draft.path} yet: put the images there, or upload them."]
    if status == "processing":
        return ["The folder is large and is being looked at."]
    assert report is not None
    return [*report.errors, *report.summary]
