"""The images of a dataset: uploaded, listed with thumbnails, and captioned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from influencerai.dataset import ImageReport
from influencerai.dataset.decoding import Decoding
from influencerai.dataset.file_kinds import ARCHIVE, PICTURE, UNKNOWN
from influencerai.dataset.thumbnail import thumbnail
from influencerai.dataset.uploads.received_files import kind_by_name
from influencerai.dataset.uploads.received_names import received_path, storable_path
from influencerai.dataset.uploads.upload import Upload, UploadLimits, unpacked_size
from influencerai.dataset.uploads.upload_report import UploadReport
from influencerai.dataset.uploads.uploaded_files import write_caption
from influencerai.domain.dataset import Dataset, DatasetImage, ImageQuery
from influencerai.domain.page import Page
from influencerai.domain.relative_path import is_image_path
from influencerai.errors import DatasetError, NotFoundError, ValidationError
from influencerai.files import beneath
from influencerai.service.dataset_folders import MissingFolderError
from influencerai.service.datasets import DatasetService
from influencerai.service.picture_work import PictureWork
from influencerai.service.quotas import QuotaService
from influencerai.settings import Settings

_ZIP = b"PK\x03\x04"


class DatasetImageService:
    """Images of one tenant's datasets, per call."""

    def __init__(self, settings: Settings, datasets: DatasetService, work: PictureWork, quotas: QuotaService) -> None:
        self._datasets = datasets
        self._work = work
        self._quotas = quotas
        self._max_pixels = settings.max_image_pixels
        self._limits = UploadLimits(
            max_files=settings.max_upload_files,
            max_total_bytes=settings.max_upload_mib * 2**20,
            max_pixels=settings.max_image_pixels,
            max_total_pixels=settings.max_upload_megapixels * 10**6,
        )

    async def upload_limit(self, tenant: str, id: str) -> int:
        """Bytes that the next upload to a dataset may bring.

        Raises:
            NotFoundError: there is no such dataset.
            QuotaError: the tenant may not store more.
        """
        await self._datasets.find(tenant, id)
        return await self._quotas.upload_limit(tenant)

    async def upload(
        self,
        tenant: str,
        id: str,
        files: Sequence[tuple[str, BinaryIO]],
        *,
        captions: Mapping[str, str],
        replace: bool = False,
    ) -> tuple[UploadReport, Dataset]:
        """Put images, caption files and zips of them into the dataset's folder: all, or none.

        Raises:
            NotFoundError: there is no such dataset.
            ValidationError: what is wrong with each file.
            QuotaError: the tenant may not store, or upload at once, so many bytes.
        """
        dataset = await self._datasets.find(tenant, id)

        def measure(decoding: Decoding) -> int:
            total = sum(len(text.encode(errors="replace")) for text in captions.values())
            for name, file in files:
                total += unpacked_size(file, is_archive=_is_archive(name, file), limits=self._limits)
                file.seek(0)
            return total

        def put(decoding: Decoding) -> UploadReport:
            with (
                self._datasets.opened(dataset, make=True) as folder,
                Upload(folder, limits=limits, decoding=decoding) as upload,
            ):
                for name, file in files:
                    if _is_archive(name, file):
                        upload.add_archive(file, name=name)
                    else:
                        upload.add(name, file)
                for name, text in captions.items():
                    upload.caption(name, text)
                report = upload.commit(replace=replace)
                charge.written = _bytes_of(folder, (*report.added, *report.replaced))
                return report

        wanted = min(await self._work.small(tenant, measure), self._limits.max_total_bytes)
        async with self._quotas.uploading(tenant, wanted) as charge:
            limits = dataclasses.replace(self._limits, max_total_bytes=wanted)
            report = await self._work.long(tenant, put)
        return report, await self._datasets.inspections.inspect_again(tenant, dataset, always=True)

    async def list(self, tenant: str, id: str, query: ImageQuery) -> Page[DatasetImage]:
        """A slice of the dataset's images, as of the last inspection of its folder.

        Raises:
            NotFoundError: there is no such dataset.
            DatasetError: its folder is not there.
        """
        report = await self._datasets.report(tenant, id)
        images = list(report.images) if query.sort_order == "asc" else list(reversed(report.images))
        chosen = images[query.skip : query.skip + query.take]
        items = tuple(_image(id, image) for image in chosen)
        return Page(items=items, total=len(images), take=query.take, skip=query.skip)

    async def thumbnail(self, tenant: str, id: str, image: str) -> bytes:
        """A small WebP of one image.

        Raises:
            NotFoundError: there is no such dataset or image.
        """
        dataset, path = await self._place(tenant, id, image)

        def draw(decoding: Decoding) -> bytes:
            with self._datasets.opened(dataset) as folder:
                return thumbnail(folder / path, inside=folder, max_pixels=self._max_pixels, decoding=decoding)

        try:
            return await self._work.small(tenant, draw)
        except DatasetError as error:
            raise NotFoundError(f"Image {path} has no thumbnail: {error.message}") from error

    async def write_caption(self, tenant: str, id: str, image: str, text: str) -> DatasetImage:
        """Set the caption of one image; an empty one removes its caption file.

        Raises:
            NotFoundError: there is no such dataset or image.
            ValidationError: the text cannot be a caption.
        """
        dataset, path = await self._place(tenant, id, image)

        def write(decoding: Decoding) -> None:
            with self._datasets.opened(dataset) as folder:
                write_caption(folder, path, text)

        try:
            await self._work.small(tenant, write)
        except MissingFolderError as error:
            raise NotFoundError.of("Image", path) from error
        except ValidationError as error:
            texts = [text for texts in error.field_errors.values() for text in texts]
            raise ValidationError(field_errors={"caption": texts}) from error
        return _image(id, await self._datasets.note_caption(tenant, id, path, text))

    async def _place(self, tenant: str, id: str, image: str) -> tuple[Dataset, str]:
        """The dataset, and the image's path in its folder."""
        dataset = await self._datasets.get(tenant, id)
        if not is_image_path(image):
            raise NotFoundError(f"Image {image!a} not found")
        return dataset, image


def _bytes_of(folder: Path, names: Iterable[str]) -> int:
    found = (beneath.status(folder, name) for name in names)
    return sum(file.st_size for file in found if file is not None)


def _is_archive(name: str, file: BinaryIO) -> bool:
    """Whether a file is a zip of a dataset; documents and caches of trainers are zips by content too."""
    head = file.read(len(_ZIP))
    file.seek(0)
    if head != _ZIP:
        return False
    try:
        return kind_by_name(storable_path(received_path(name))) in (ARCHIVE, UNKNOWN, PICTURE)
    except DatasetError:
        return True


def _image(id: str, image: ImageReport) -> DatasetImage:
    return DatasetImage(
        path=image.path,
        width=image.width,
        height=image.height,
        caption=image.caption,
        caption_source=image.caption_source,
        usable=image.usable,
        errors=image.errors,
        warnings=image.warnings,
        thumbnail=f"/datasets/{id}/images/{quote(image.path)}/thumbnail",
    )
