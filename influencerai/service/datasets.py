"""Datasets: registered folders of images, and the reports of their inspections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from influencerai.dataset import DatasetReport, ImageReport
from influencerai.dataset.report import CaptionSource
from influencerai.dataset.uploads.uploaded_files import remove_uploaded
from influencerai.domain.dataset import Dataset, DatasetDraft, DatasetQuery, DatasetStatus
from influencerai.domain.page import Page
from influencerai.domain.training_options import TrainingOptions
from influencerai.errors import (
    InUseError,
    NotFoundError,
    RefusedError,
    ValidationError,
)
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.answer import Answer, answer_once
from influencerai.service.dataset_folders import DatasetFolders, MissingFolderError
from influencerai.service.dataset_inspections import DatasetInspections, dataset_not_found
from influencerai.service.lora_configs import users
from influencerai.service.picture_work import PictureWork
from influencerai.service.quotas import QuotaService
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey

_NAMES_COMPARED = 100
"""Of a dataset's meta: comparing each of the 60,000 that a body may hold would keep everybody waiting for seconds."""


class DatasetService:
    """One tenant's datasets per call."""

    def __init__(
        self, store: Store, settings: Settings, folders: TenantFolders, work: PictureWork, quotas: QuotaService
    ) -> None:
        self._store = store
        self._folders = DatasetFolders(folders)
        self._work = work
        self._quotas = quotas
        self.inspections = DatasetInspections(store, settings, self._folders, work)

    async def create(
        self, tenant: str, draft: DatasetDraft, *, unknown: tuple[str, ...] = (), request: RequestKey | None = None
    ) -> Answer[Dataset]:
        """Register a folder; its status is that of its first inspection.

        Raises:
            ValidationError: the path leaves the tenant's root.
            QuotaError: the tenant has as many datasets as it may have.
        """
        self._folders.check(tenant, draft.path)
        status, report = await self.inspections.inspect_new(tenant, draft)
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
            self.inspections.inspect_later(answer.value)
        return answer

    async def list(self, tenant: str, query: DatasetQuery) -> Page[Dataset]:
        """A slice of the tenant's datasets."""
        async with self._store.read() as transaction:
            return await transaction.datasets.page(tenant, query)

    async def get(self, tenant: str, id: str) -> Dataset:
        """One dataset; a pending one is inspected again.

        Raises:
            NotFoundError: there is none of this id.
        """
        found = await self.find(tenant, id)
        return await self.inspections.inspect_again(tenant, found) if found.status == "pending" else found

    async def find(self, tenant: str, id: str) -> Dataset:
        """One dataset as of its last inspection.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._store.read() as transaction:
            found = await transaction.datasets.get(tenant, id)
        if found is None:
            raise dataset_not_found(id)
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
        """The report of the last inspection; with `refresh`, or where there is none, the folder is inspected now.

        Raises:
            NotFoundError: there is no such dataset.
            DatasetError: the folder is not there.
        """
        dataset = await self.get(tenant, id)
        if not refresh:
            async with self._store.read() as transaction:
                if document := await transaction.datasets.report(tenant, id):
                    return DatasetReport.model_validate(document)
        _, report = await self.inspections.inspect(dataset)
        return report

    async def delete(self, tenant: str, id: str) -> None:
        """Delete a dataset that no active job uses, with the files that were uploaded to it.

        Raises:
            NotFoundError: there is no such dataset.
            RefusedError: pending or running jobs use it.
        """
        async with self._store.write() as transaction:
            dataset = await transaction.datasets.get(tenant, id)
            if dataset is None:
                raise dataset_not_found(id)
            try:
                await transaction.datasets.remove(tenant, id)
            except InUseError as error:
                raise RefusedError(f"Cannot delete dataset: {users(error.jobs)} using it") from error
            is_shared = await transaction.datasets.has_path(tenant, dataset.path)
        self.inspections.cancel(id)
        if not is_shared:
            # A link that leads out of the root by now, or no folder: nothing there is ours.
            with suppress(ValidationError, MissingFolderError):
                await self._work.small(tenant, lambda _: self._remove_uploaded(tenant, dataset.path))

    def inspect_soon(self, tenant: str, id: str) -> None:
        """Inspect a dataset in the background."""

        async def inspect() -> None:
            with suppress(NotFoundError):
                await self.get(tenant, id)

        self.inspections.in_background(id, inspect)

    async def note_caption(self, tenant: str, id: str, image: str, text: str) -> ImageReport:
        """Write the new caption of an image into the report.

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
                raise dataset_not_found(id)
            # As plain data: validating thousands of images would keep other writers waiting.
            images = [{**item, **fields} if item["path"] == image else item for item in document["images"]]
            await transaction.datasets.edit(tenant, id, lambda _: {"report": {**document, "images": images}})
        return next((ImageReport.model_validate(item) for item in images if item["path"] == image), noted)

    def opened(self, dataset: Dataset, *, make: bool = False) -> AbstractContextManager[Path]:
        """Where the dataset's images lie; blocks on the disk, and raises as `DatasetFolders.opened`."""
        return self._folders.opened(dataset.tenant_id, dataset.path, make=make)

    def _remove_uploaded(self, tenant: str, path: str) -> None:
        with self._folders.opened(tenant, path) as folder:
            remove_uploaded(folder)
        self._folders.remove_empty(tenant, path)

    async def _edit(self, tenant: str, id: str, change: Any) -> Dataset:
        async with self._store.write() as transaction:
            changed = await transaction.datasets.edit(tenant, id, change)
        if changed is None:
            raise dataset_not_found(id)
        return changed


def _misspelt(meta: Mapping[str, Any]) -> list[str]:
    """Warnings about what was probably meant as the trigger word: meta is free, so it is kept as it is."""
    compared = [name for name in islice(meta, _NAMES_COMPARED) if name != "triggerWord"]
    near = [name for name in compared if TrainingOptions.nearest_field(name) == "triggerWord"]
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
