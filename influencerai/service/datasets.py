"""Datasets: registered folders of images, and what was seen in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from influencerai.dataset import DatasetReport, ImageReport, count_candidates, inspect_dataset
from influencerai.dataset.decoding import Decoding
from influencerai.dataset.report import CaptionSource
from influencerai.dataset.uploads.uploaded_files import remove_uploaded
from influencerai.domain.dataset import Dataset, DatasetDraft, DatasetQuery, DatasetStatus
from influencerai.domain.page import Page
from influencerai.domain.training_options import TrainingOptions
from influencerai.errors import (
    DatasetError,
    InfluencerAIError,
    InUseError,
    NotFoundError,
    RefusedError,
    ValidationError,
)
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.answer import Answer, answer_once
from influencerai.service.dataset_folders import DatasetFolders, MissingFolderError
from influencerai.service.lora_configs import users
from influencerai.service.picture_work import PictureWork
from influencerai.service.quotas import QuotaService
from influencerai.service.shared_work import SharedWork
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey

LOOKED_AT_ONCE = 500
"""Images of a folder that are looked at while its user waits."""
_NAMES_COMPARED = 100
"""Of a dataset's meta: comparing each of the 60,000 that a body may hold would keep everybody waiting for seconds."""
_log = logging.getLogger(__name__)


class DatasetService:
    """One tenant's datasets per call."""

    def __init__(
        self, store: Store, settings: Settings, folders: TenantFolders, work: PictureWork, quotas: QuotaService
    ) -> None:
        self._store = store
        self._settings = settings
        self._folders = DatasetFolders(folders)
        self._work = work
        self._quotas = quotas
        self._looks = SharedWork[tuple[Dataset, DatasetReport]]()
        self._looking: dict[str, asyncio.Task[None]] = {}
        """Looks that nobody waits for, by dataset."""
        self._is_closed = False

    async def create(
        self, tenant: str, draft: DatasetDraft, *, unknown: tuple[str, ...] = (), request: RequestKey | None = None
    ) -> Answer[Dataset]:
        """Register a folder; its status says what was found there.

        Raises:
            ValidationError: the path leaves the tenant's root.
            QuotaError: the tenant has as many datasets as it may have.
        """
        self._folders.check(tenant, draft.path)
        status, report = await self._first_look(tenant, draft)
        warnings = (*unknown, *_misspelt(draft.meta), *_warnings(status, report, draft))

        async def make(transaction: Transaction) -> Answer[Dataset]:
            await self._quotas.check_new(transaction, tenant, "datasets")
            twins = await transaction.datasets.at_path(tenant, draft.path)
            found = await transaction.datasets.add(
                tenant, draft, status=status, report=None if report is None else report.to_wire()
            )
            return Answer(value=found, warnings=(*warnings, *_twin_warnings(draft, twins)))

        answer = await answer_once(self._store, tenant, request, Dataset, make)
        if answer.value.status == "processing":
            self._look_later(answer.value)
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
        found = await self.find(tenant, id)
        return await self.look_again(tenant, found) if found.status == "pending" else found

    async def find(self, tenant: str, id: str) -> Dataset:
        """One dataset as it was last looked at.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._store.read() as transaction:
            found = await transaction.datasets.get(tenant, id)
        if found is None:
            raise _not_found(id)
        return found

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

    async def report(self, tenant: str, id: str, *, refresh: bool = False) -> DatasetReport:
        """What was seen in the folder; with `refresh`, or where it was never seen, it is looked at now.

        Raises:
            NotFoundError: there is no such dataset.
            DatasetError: the folder is not there.
        """
        dataset = await self.get(tenant, id)
        if not refresh:
            async with self._store.read() as transaction:
                if document := await transaction.datasets.report(tenant, id):
                    return DatasetReport.model_validate(document)
        _, report = await self._look(dataset)
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
            # A link that leads out of the root by now, or no folder: nothing there is ours.
            with suppress(ValidationError, MissingFolderError):
                await self._work.small(tenant, lambda _: self._remove_uploaded(tenant, dataset.path))

    async def look_again(self, tenant: str, dataset: Dataset, *, always: bool = False) -> Dataset:
        """The dataset with the status that its folder has now; what somebody set in between stays.

        With `always` the report is written again even where the status is what it was.
        """
        try:
            self._folders.check(tenant, dataset.path)
            if status := await self._status_before_look(tenant, dataset.path):
                if status == dataset.status and not always:
                    return dataset
                changed = await self._keep(dataset, status=status, report=None)
                if changed.status == "processing":
                    self._look_later(changed)
                return changed
            changed, _ = await self._look(dataset)
        except (DatasetError, ValidationError) as error:
            _log.warning("The dataset cannot be looked at: %s", error, extra={"dataset_id": dataset.id})
            return await self._keep(dataset, status="failed", report=None)
        return changed

    def look_soon(self, tenant: str, id: str) -> None:
        """Look again at a dataset while nobody waits for it."""

        async def look() -> None:
            with suppress(NotFoundError):
                await self.get(tenant, id)

        self._in_background(id, look)

    async def note_caption(self, tenant: str, id: str, image: str, text: str) -> ImageReport:
        """Write into the report that an image has this caption now.

        Raises:
            NotFoundError: there is no such dataset.
        """
        source: CaptionSource = "txt" if text.strip() else "none"
        noted = ImageReport(path=image, caption=" ".join(text.split()), caption_source=source)
        fields = {name: noted.to_wire()[name] for name in ("caption", "captionSource")}
        await self.report(tenant, id)  # so that there is one
        async with self._store.write() as transaction:
            document = await transaction.datasets.report(tenant, id, lock=True)  # another caption may be written now
            if document is None:
                raise _not_found(id)
            # As plain data: validating thousands of images would keep other writers waiting.
            images = [{**item, **fields} if item["path"] == image else item for item in document["images"]]
            await transaction.datasets.edit(tenant, id, lambda _: {"report": {**document, "images": images}})
        return next((ImageReport.model_validate(item) for item in images if item["path"] == image), noted)

    async def resume_looking(self) -> None:
        """Look at the large folders that a service was looking at when it ended."""
        async with self._store.read() as transaction:
            found = await transaction.datasets.unseen()
        for dataset in found:
            self._look_later(dataset)

    async def close(self) -> None:
        """Stop looking at large folders; they are looked at again when the service starts."""
        self._is_closed = True
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    def opened(self, dataset: Dataset, *, make: bool = False) -> AbstractContextManager[Path]:
        """Where the dataset's images lie; blocks on the disk, and raises as `DatasetFolders.opened`."""
        return self._folders.opened(dataset.tenant_id, dataset.path, make=make)

    async def _first_look(self, tenant: str, draft: DatasetDraft) -> tuple[DatasetStatus, DatasetReport | None]:
        """The status that a folder deserves; a large one is left for later."""
        if status := await self._status_before_look(tenant, draft.path):
            return status, None
        report = await self._inspect(tenant, draft.path, draft.meta)
        return report.status, report

    async def _status_before_look(self, tenant: str, path: str) -> DatasetStatus | None:
        """The status of a folder that is missing, or too large to be inspected while its user waits."""

        def count(decoding: Decoding) -> int | None:
            with self._folders.opened(tenant, path) as folder:
                return count_candidates(folder)

        try:
            found = await self._work.small(tenant, count)
        except MissingFolderError:
            return "pending"
        return "processing" if (found or 0) > LOOKED_AT_ONCE else None

    async def _look(self, dataset: Dataset) -> tuple[Dataset, DatasetReport]:
        """Inspect the folder and keep what was found, together with all who want that now."""

        async def look() -> tuple[Dataset, DatasetReport]:
            async with self._store.read() as transaction:
                now = await transaction.datasets.get(dataset.tenant_id, dataset.id)
            if now is None:
                raise _not_found(dataset.id)
            report = await self._inspect(now.tenant_id, now.path, now.meta)
            return await self._keep(now, status=report.status, report=report), report

        return await self._looks.run(dataset.id, look)

    def _look_later(self, dataset: Dataset) -> None:
        async def look() -> None:
            with suppress(NotFoundError):  # deleted in the meantime
                await self._look(dataset)

        self._in_background(dataset.id, look)

    def _in_background(self, id: str, work: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except InfluencerAIError as error:
                _log.warning("The dataset cannot be looked at: %s", error, extra={"dataset_id": id})
            except Exception:
                _log.exception("The dataset could not be looked at.", extra={"dataset_id": id})
            finally:
                self._looking.pop(id, None)

        if id not in self._looking and not self._is_closed:
            self._looking[id] = asyncio.create_task(guarded())

    async def _inspect(self, tenant: str, path: str, meta: Mapping[str, Any]) -> DatasetReport:
        def inspect(decoding: Decoding) -> DatasetReport:
            with self._folders.opened(tenant, path) as folder:
                found = inspect_dataset(
                    folder,
                    trigger_word=trigger_word(meta),
                    max_pixels=self._settings.max_image_pixels,
                    decoding=decoding,
                )
            return found.model_copy(update={"folder": ""})

        return await self._work.long(tenant, inspect)

    def _remove_uploaded(self, tenant: str, path: str) -> None:
        with self._folders.opened(tenant, path) as folder:
            remove_uploaded(folder)
        self._folders.remove_empty(tenant, path)

    async def _keep(self, dataset: Dataset, *, status: DatasetStatus, report: DatasetReport | None) -> Dataset:
        """Write what was seen; a status that was set by hand in between stays."""
        document = None if report is None else report.to_wire()
        return await self._edit(
            dataset.tenant_id,
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


def _twin_warnings(draft: DatasetDraft, ids: Sequence[str]) -> list[str]:
    """A warning about datasets that have the same folder."""
    if not ids:
        return []
    named = f"Dataset {ids[0]} has" if len(ids) == 1 else f"{len(ids)} datasets, such as {ids[0]}, have"
    return [f"{named} the folder {draft.path} already: what is changed in one is changed in all."]


def _warnings(status: DatasetStatus, report: DatasetReport | None, draft: DatasetDraft) -> list[str]:
    if status == "pending":
        return [f"There is no folder {draft.path} yet: put the images there, or upload them."]
    if status == "processing":
        return ["The folder is large and is being looked at."]
    assert report is not None
    return [*report.errors, *report.summary]
