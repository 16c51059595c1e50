"""Datasets: registered folders of images, and the images in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import httpx2

from influencerai.client.answers import document_of, noun_of
from influencerai.client.blocking import Blocking, blocking, listing
from influencerai.client.connection import Connection, segment
from influencerai.client.listing import AsyncListing
from influencerai.client.upload import LocalFile, local_folder, opened
from influencerai.domain.dataset import Dataset, DatasetImage, DatasetKind, DatasetStatus, UploadAnswer
from influencerai.domain.page import SortOrder
from influencerai.errors import ValidationError

_INSPECTION_SECONDS = 600.0
"""The server answers an upload when it has decoded every image."""


class AsyncDatasets:
    """The tenant's datasets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        *,
        path: str | PurePath,
        kind: DatasetKind = "lora-training",
        meta: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Dataset:
        """Register a folder below the server's root; its `status` reports what was found there.

        Args:
            path: relative to the root; need not be there before images are uploaded.
            kind: what the dataset is for.
            meta: free; its `triggerWord` goes into training.
            idempotency_key: by which the server knows a repetition; by default one for this call.
        """
        body = {"kind": kind, "path": path if isinstance(path, str) else path.as_posix(), "meta": dict(meta or {})}
        return await self._connection.post(Dataset, "/datasets", body, key=idempotency_key)

    async def get(self, id: str) -> Dataset:
        """One dataset; a pending one is inspected again."""
        return await self._connection.get(Dataset, f"/datasets/{segment(id)}")

    def list(
        self,
        *,
        status: DatasetStatus | None = None,
        kind: DatasetKind | None = None,
        sort_order: SortOrder | None = None,
        page_size: int = 100,
    ) -> AsyncListing[Dataset]:
        """All datasets, the newest first unless sorted otherwise."""
        return self._connection.list(
            Dataset, "/datasets", page_size=page_size, status=status, kind=kind, sortOrder=sort_order
        )

    async def update(self, id: str, *, meta: Mapping[str, Any]) -> Dataset:
        """Replace the meta."""
        return await self._connection.patch(Dataset, f"/datasets/{segment(id)}", {"meta": dict(meta)})

    async def set_status(self, id: str, status: DatasetStatus) -> Dataset:
        """Set the status by hand."""
        return await self._connection.patch(Dataset, f"/datasets/{segment(id)}/status", {"status": status})

    async def delete(self, id: str) -> None:
        """Forget a dataset, and remove what was uploaded to it.

        Raises:
            RefusedError: pending or running jobs use it.
        """
        await self._connection.delete(f"/datasets/{segment(id)}")

    async def report(self, id: str, *, refresh: bool = False) -> dict[str, Any]:
        """The report on the folder, each image with its faults, as JSON; `refresh` inspects it again."""
        return await self._connection.document(f"/datasets/{segment(id)}/report", refresh=refresh or None)

    async def upload(self, id: str, source: str | Path, *, replace: bool = False) -> UploadAnswer:
        """Put images with their captions into the dataset's folder.

        A folder of many images goes up in several requests; of each, the server takes everything or nothing. To
        upload again what has arrived is no mistake: it counts as unchanged.

        Args:
            id: of the dataset.
            source: a folder, whose images, captions (`cat.txt` for `cat.png`) and tables of captions are taken with
                those of the folders in it; or one image; or a zip of all these. The answer lists what was left out.
            replace: replace files of the same name that are there with other bytes.

        Raises:
            ValidationError: there are no images, or something is wrong with one; nothing of its request was taken.
        """
        found = await self._connection.transport.aside(lambda: local_folder(Path(source)))
        path = f"/datasets/{segment(id)}/images"
        answers = [await self._upload(path, files, replace=replace) for files in found.batches]
        return UploadAnswer(
            added=tuple(name for answer in answers for name in answer.added),
            replaced=tuple(name for answer in answers for name in answer.replaced),
            unchanged=tuple(name for answer in answers for name in answer.unchanged),
            captions=sum(answer.captions for answer in answers),
            skipped=(*found.skipped, *(file for answer in answers for file in answer.skipped)),
            renamed=tuple(file for answer in answers for file in answer.renamed),
            warnings=(*found.warnings, *(text for answer in answers for text in answer.warnings)),
            status=answers[-1].status,
        )

    def images(
        self, id: str, *, sort_order: SortOrder | None = None, page_size: int = 100
    ) -> AsyncListing[DatasetImage]:
        """The dataset's images with captions and faults, as of the last inspection of its folder; sorted by path."""
        path = f"/datasets/{segment(id)}/images"
        return self._connection.list(DatasetImage, path, key="path", page_size=page_size, sortOrder=sort_order)

    async def thumbnail(self, id: str, image: str) -> bytes:
        """A small WebP of the image at this path in the dataset."""
        return (await self._connection.request("GET", f"{_image(id, image)}/thumbnail")).content

    async def write_caption(self, id: str, image: str, caption: str) -> DatasetImage:
        """Set the caption of the image at this path in the dataset; an empty one removes it."""
        response = await self._connection.request("PUT", f"{_image(id, image)}/caption", body={"caption": caption})
        return noun_of(DatasetImage, document_of(response), response)

    async def _upload(self, path: str, files: tuple[LocalFile, ...], *, replace: bool) -> UploadAnswer:
        timeout = httpx2.Timeout(_INSPECTION_SECONDS)
        with opened(files, fields={"replace": "true"} if replace else {}) as form:
            response = await self._connection.request("POST", path, form=form, timeout=timeout, is_repeatable=True)
        return noun_of(UploadAnswer, document_of(response), response)


class Datasets(Blocking[AsyncDatasets]):
    """The tenant's datasets."""

    create = blocking(AsyncDatasets.create)
    get = blocking(AsyncDatasets.get)
    list = listing(AsyncDatasets.list)
    update = blocking(AsyncDatasets.update)
    set_status = blocking(AsyncDatasets.set_status)
    delete = blocking(AsyncDatasets.delete)
    report = blocking(AsyncDatasets.report)
    upload = blocking(AsyncDatasets.upload)
    images = listing(AsyncDatasets.images)
    thumbnail = blocking(AsyncDatasets.thumbnail)
    write_caption = blocking(AsyncDatasets.write_caption)


def _image(id: str, path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValidationError(f"{path!r} is no path of an image in a dataset.")
    return f"/datasets/{segment(id)}/images/{quote(path)}"
