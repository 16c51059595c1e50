"""Upload: images and captions from elsewhere, all checked before any of them is put into a dataset folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from influencerai.dataset.decoding import Decoding
from influencerai.dataset.file_kinds import CAPTION
from influencerai.dataset.folder import list_folder
from influencerai.dataset.image_file import MAX_FILE_BYTES, MAX_PIXELS
from influencerai.dataset.spelling_there import folded
from influencerai.dataset.uploads.archive import CHUNK_BYTES, ArchiveError, members, unpacked_bytes
from influencerai.dataset.uploads.manifest import refusals
from influencerai.dataset.uploads.received_files import (
    Findings,
    LimitError,
    PictureLimits,
    ReceivedFile,
    examine,
    without_top,
)
from influencerai.dataset.uploads.received_names import shown
from influencerai.dataset.uploads.staging import Staging, locked
from influencerai.dataset.uploads.stored_names import StoredNames
from influencerai.dataset.uploads.upload_report import UploadReport, nothing_usable
from influencerai.dataset.uploads.uploaded_files import MAX_CAPTION_LENGTH, caption_bytes, digest_there, is_image
from influencerai.errors import DatasetError, InfluencerAIError, ValidationError

_FILES_PER_IMAGE = 4
"""Captions, caches, folders and a `__MACOSX` twin for each file are no reason to refuse an upload."""
_NO_IMAGE = ("There is no image of this name in the upload or the folder.", "Upload it together with its image.")


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Limits of one upload. Sizes are in bytes, unpacked."""

    max_files: int = 500
    """Images."""
    max_file_bytes: int = MAX_FILE_BYTES
    max_total_bytes: int = 2**31
    max_table_bytes: int = 2**23
    max_ratio: float = 100
    """Unpacked over packed bytes, of each file of an archive and of the whole."""
    max_pixels: int = MAX_PIXELS
    """Of one image."""
    max_total_pixels: int = 12 * 10**9
    """Of all images: 500 photos of 24 megapixels."""
    max_caption_length: int = MAX_CAPTION_LENGTH
    """Of a caption that comes without a file, in characters."""
    max_folder_files: int = 10_000
    """Files in the dataset folder when the upload is in it."""


def unpacked_size(file: BinaryIO, *, is_archive: bool, limits: UploadLimits) -> int:
    """Bytes that a file brings at most; of an archive those of its directory, and none of one that is damaged."""
    if not is_archive:
        return file.seek(0, os.SEEK_END)
    try:
        return unpacked_bytes(file, max_entries=_entries(limits))
    except ArchiveError:  # which `Upload.add_archive` reports
        return 0


def _entries(limits: UploadLimits) -> int:
    return _FILES_PER_IMAGE * (limits.max_files + 1)


@dataclass(frozen=True)
class _Place:
    """A file that goes into the folder: its path there, the file it came as, its SHA-256."""

    path: str
    staged: str
    digest: str
    source: str
    field: str
    is_caption: bool


class Upload:
    """Files on their way into a dataset folder, which changes only if all of them are valid.

    Use it as a context; leaving the block removes what was not committed. Files that are neither pictures nor captions
    are left out and listed. Errors of pictures and captions are collected, and reported together by `commit`. Methods
    block on the disk, and `commit` on the processor while images are decoded.

    Args:
        folder: the dataset folder, resolved; made where it is missing.
        limits: how much is accepted.
        decoding: limits that a process with several uploads shares; its check may end the upload before its commit.

    Raises:
        InfluencerAIError: the file system refuses, from any method. Before `commit` nothing has changed; `commit` may
            have placed some of the files, and the same upload again places the others.
    """

    def __init__(self, folder: Path, *, limits: UploadLimits | None = None, decoding: Decoding | None = None) -> None:
        self._folder = folder
        self._limits = limits or UploadLimits()
        self._decoding = decoding or Decoding()
        self._staging = Staging(folder)
        self._files: list[ReceivedFile] = []
        self._captions: dict[str, str] = {}
        self._errors: dict[str, list[str]] = {}
        self._count = 0
        self._bytes = 0
        self._is_full = False

    def __enter__(self) -> Self:
        self._staging.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._staging.__exit__(*details)

    def add(self, name: str, file: BinaryIO) -> None:
        """Take one file under the path that `name` means."""
        self._receive(name, iter(lambda: file.read(CHUNK_BYTES), b""))

    def add_archive(self, file: BinaryIO, *, name: str = "archive") -> None:
        """Take every file of a zip archive, which must be seekable, without the folder that holds all of them."""
        limits, first = self._limits, len(self._files)
        try:
            for member in members(
                file,
                max_entries=_entries(limits),
                max_file_bytes=limits.max_file_bytes,
                max_total_bytes=limits.max_total_bytes,
                max_ratio=limits.max_ratio,
            ):
                if self._is_full:
                    break
                self._receive(member.name, member.chunks)
        except ArchiveError as error:
            self._fail(f"files.{shown(name)}", str(error))
        without_top(self._files[first:])

    def caption(self, image: str, text: str) -> None:
        """Take the caption of an image of this upload or of the folder; an empty one counts as none."""
        if text.strip():
            self._captions[image] = text

    def commit(self, *, replace: bool = False) -> UploadReport:
        """Put everything into the folder.

        Args:
            replace: whether files that are there with other bytes are replaced; else they are errors.

        Raises:
            ValidationError: with everything that is wrong with any file, by `files.<name>` or `captions.<name>`.
        """
        found = self._examined()
        with refusals(self._folder), locked(self._folder):
            present = list_folder(self._folder).files
            names = StoredNames(found.usable, present=present, is_picture=lambda path: is_image(self._folder, path))
            places = self._places(found, names)
            report = self._compared(places, found.errors, replace=replace)
            report = report.with_left_out(found, names=names)
            if not places and not found.errors:
                found.errors.update(nothing_usable(found))
            if len(present) + len(report.added) > (most := self._limits.max_folder_files):
                text = f"The folder would hold more than {most:,} files; {len(present):,} are there."
                found.errors.setdefault("files", []).append(text)
            if found.errors:
                raise ValidationError(field_errors=found.errors)
            changed = {*report.added, *report.replaced}
            if changed:
                self._staging.place({file.path: (file.staged, file.digest) for file in places if file.path in changed})
        return report

    def _receive(self, source: str, chunks: Iterable[bytes]) -> None:
        """Stage one file, or keep what is wrong with it."""
        if self._is_full:
            return
        file = ReceivedFile(source, f"files.{shown(source)}")
        self._files.append(file)
        try:
            self._count += 1
            if self._count > (most := _entries(self._limits)):
                raise LimitError(f"There are more than {most:,} files.", remedy="Send fewer at a time.")
            file.name()
            if not file.is_passed_over:
                staged = str(self._count)
                file.digest = self._staging.receive(staged, self._limited(chunks))
                file.staged = staged
        except ArchiveError:
            raise
        except LimitError as error:
            self._is_full = True
            self._fail("files", str(error))
        except DatasetError as error:
            file.error = str(error)
        except InfluencerAIError as error:
            self._fail("files", str(error))  # Whoever catches it cannot commit what is left.
            raise

    def _limited(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        size = 0
        for chunk in chunks:
            self._decoding.check()
            size += len(chunk)
            self._bytes += len(chunk)
            if self._bytes > self._limits.max_total_bytes:
                raise LimitError(f"The files are larger than {self._limits.max_total_bytes:,} bytes together.")
            if size > self._limits.max_file_bytes:
                raise DatasetError(f"The file is larger than {self._limits.max_file_bytes:,} bytes.")
            yield chunk

    def _examined(self) -> Findings:
        """The usable files among all that were received."""
        if self._errors:
            return Findings(errors=dict(self._errors))
        limits = self._limits
        caps = PictureLimits(
            max_files=limits.max_files,
            max_pixels=limits.max_pixels,
            max_total_pixels=limits.max_total_pixels,
            max_file_bytes=limits.max_file_bytes,
            max_table_bytes=limits.max_table_bytes,
        )
        try:
            return examine(
                self._files,
                present=list_folder(self._folder).files,
                read=lambda name, size: self._staging.read(name, limit=size),
                limits=caps,
                decoding=self._decoding,
            )
        except LimitError as error:
            return Findings(errors={"files": [str(error)]})

    def _places(self, found: Findings, names: StoredNames) -> list[_Place]:
        """Where each file goes; what goes nowhere is added to the findings."""
        places: dict[str, _Place] = {}

        def claim(place: _Place) -> None:
            other = places.setdefault(folded(place.path), place)
            if other is not place:
                text = f"'{shown(other.source)}' and '{shown(place.source)}' would both be stored as '{place.path}'."
                found.errors.setdefault(place.field, []).append(f"{text} Rename one of them.")

        for file in found.usable:
            if (path := names.by_file.get(file)) is None:
                found.skipped.append((file, *_NO_IMAGE))
            else:
                claim(_Place(path, file.staged, file.digest, file.source, file.field, file.kind is CAPTION))
        for image, text in self._captions.items():
            field = f"captions.{shown(image)}"
            try:
                if (path := names.of_caption(image)) is None:
                    raise DatasetError(f"There is no image '{shown(image)}' that this could be the caption of.")
                claim(self._written(path, text, source=image, field=field))
            except DatasetError as error:
                found.errors.setdefault(field, []).append(str(error))
        for path, text in names.lost_captions().items():
            if folded(path) not in places:
                claim(self._written(path, text, source=path, field=f"files.{path}", limit=len(text)))
        return sorted(places.values(), key=lambda place: place.path)

    def _written(self, path: str, text: str, *, source: str, field: str, limit: int | None = None) -> _Place:
        """A caption that came without a file of its own."""
        self._count += 1
        data = caption_bytes(text, max_length=limit or self._limits.max_caption_length)
        return _Place(path, str(self._count), self._staging.receive(str(self._count), [data]), source, field, True)

    def _compared(self, places: Iterable[_Place], errors: dict[str, list[str]], *, replace: bool) -> UploadReport:
        """The changes that the commit makes; conflicts with files in place are added to `errors`."""
        found: dict[str, list[str]] = {"added": [], "replaced": [], "unchanged": []}
        captions = 0
        for place in places:
            captions += place.is_caption
            try:
                present = digest_there(self._folder, place.path)
                if present and present != place.digest and not replace:
                    raise DatasetError(f"There is another '{place.path}' already.", remedy="Rename it, or replace it.")
                kind = "unchanged" if present == place.digest else "replaced" if present else "added"
                found[kind].append(place.path)
            except DatasetError as error:
                errors.setdefault(place.field, []).append(str(error))
        return UploadReport(**{kind: tuple(paths) for kind, paths in found.items()}, caption_count=captions)

    def _fail(self, field: str, text: str) -> None:
        self._errors.setdefault(field, []).append(text)
