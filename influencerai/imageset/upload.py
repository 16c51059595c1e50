"""Upload: images and captions that come from elsewhere, checked one by one and put into a dataset folder together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from pydantic import Field

from influencerai.domain.wire import WireModel
from influencerai.errors import DatasetError, InfluencerAIError, ValidationError
from influencerai.imageset.archive import CHUNK_BYTES, TABLES, ArchiveError, flat_name, is_rubbish, members, shown
from influencerai.imageset.caption_tables import NoCaptionsError, TableError, table_rows
from influencerai.imageset.caption_text import MAX_CAPTION_BYTES
from influencerai.imageset.decoding import Decoding
from influencerai.imageset.folder import list_folder, read_file, read_head
from influencerai.imageset.formats import IMAGE_SUFFIXES, sniff
from influencerai.imageset.image_file import MAX_FILE_BYTES, MAX_PIXELS, pixel_count
from influencerai.imageset.staging import Staging, locked, recover_locked, refusals
from influencerai.imageset.uploaded_files import MAX_CAPTION_LENGTH, check_caption, digest_there, is_image

_SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_ENTRIES_PER_FILE = 4
"""Folders and a `__MACOSX` twin for each file are no reason to refuse an archive."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """How much one upload may bring. Sizes are in bytes, unpacked."""

    max_files: int = 500
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
    max_folder_files: int = 10_000
    """Files in the dataset folder when the upload is in it."""


class UploadReport(WireModel):
    """What an upload changed. Names are sorted."""

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = Field(default=(), description="Were there with other bytes.")
    unchanged: tuple[str, ...] = Field(default=(), description="Were there with the same bytes.")
    caption_count: int = Field(default=0, description="Caption files among all these.")


@dataclass(frozen=True)
class _File:
    """A staged file: its name in the folder, the name it came with, the field of its errors, its SHA-256."""

    name: str
    source: str
    field: str
    digest: str

    @property
    def is_caption(self) -> bool:
        return self.name.endswith(".txt")


class _LimitError(DatasetError):
    """The upload as a whole is over a limit."""


class Upload:
    """Files on their way into a dataset folder, which changes when all of them are good, or not at all.

    Use it as a context; what is not committed is gone when the block is left. What is wrong with a file is kept
    until `commit`, which reports all of it. Methods block on the disk, and on the processor while images are decoded.

    Args:
        folder: the dataset folder, resolved; made where it is missing.
        limits: how much is accepted.
        decoding: limits that a process with several uploads shares; its check may end the upload before its commit.

    Raises:
        InfluencerAIError: the file system refuses, from any method; nothing has changed then.
    """

    def __init__(self, folder: Path, *, limits: UploadLimits | None = None, decoding: Decoding | None = None) -> None:
        self._folder = folder
        self._limits = limits or UploadLimits()
        self._decoding = decoding or Decoding()
        self._staging = Staging(folder)
        self._files: dict[str, _File] = {}  # by the name as systems compare it that know no case
        self._stems: set[str] = set()  # of all images that came, good or bad
        self._errors: dict[str, list[str]] = {}
        self._count = 0
        self._bytes = 0
        self._pixels = 0
        self._is_full = False

    def __enter__(self) -> Self:
        self._staging.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._staging.__exit__(*details)

    def add(self, name: str, file: BinaryIO) -> None:
        """Take one image, caption file or table of captions, under the last part of `name`."""
        if not is_rubbish(name):
            self._take(name, iter(lambda: file.read(CHUNK_BYTES), b""), field=f"files.{shown(name)}")

    def add_archive(self, file: BinaryIO, *, name: str = "archive") -> None:
        """Take every file of a zip archive, which must be seekable; folders in it are flattened."""
        limits = self._limits
        try:
            for member in members(
                file,
                max_entries=_ENTRIES_PER_FILE * (limits.max_files + 1),
                max_file_bytes=limits.max_file_bytes,
                max_total_bytes=limits.max_total_bytes,
                max_ratio=limits.max_ratio,
            ):
                if self._is_full:
                    break
                self._take(member.name, member.chunks, field=f"files.{shown(member.name)}")
        except ArchiveError as error:
            self._fail(f"files.{shown(name)}", str(error))

    def caption(self, image: str, text: str) -> None:
        """Take the caption of an image of this upload or of the folder; an empty one counts as none."""
        if text.strip():
            self._take(image, [text.encode(errors="surrogatepass")], field=f"captions.{shown(image)}", is_caption=True)

    def commit(self, *, replace: bool = False) -> UploadReport:
        """Put everything into the folder.

        Args:
            replace: whether files that are there with other bytes are replaced; else they are errors.

        Raises:
            ValidationError: with everything that is wrong with any file, by `files.<name>` or `captions.<name>`.
        """
        with refusals(self._folder), locked(self._folder):
            recover_locked(self._folder)
            errors = {field: list(texts) for field, texts in self._errors.items()}
            found = self._compared(errors, replace=replace)
            present = list_folder(self._folder).files
            self._check_captions(errors, present=present)
            if not self._files and not errors:
                errors["files"] = ["There are no images or captions."]
            if len(present) + len(found.added) > (most := self._limits.max_folder_files):
                text = f"The folder would hold more than {most:,} files; {len(present):,} are there."
                errors.setdefault("files", []).append(text)
            if errors:
                raise ValidationError(field_errors=errors)
            digests = {file.name: file.digest for file in self._files.values()}
            self._staging.commit({name: digests[name] for name in (*found.added, *found.replaced)})
        return found

    def _take(self, source: str, chunks: Iterable[bytes], *, field: str, is_caption: bool = False) -> None:
        """Stage one file, or keep what is wrong with it."""
        if self._is_full:
            return
        name = None
        try:
            self._count += 1
            if self._count > self._limits.max_files:
                raise _LimitError(f"There are more than {self._limits.max_files:,} files.")
            name = flat_name(source)
            if is_caption:
                name = f"{_image_stem(name)}.txt"
            elif not name.endswith(".txt"):
                self._stems.add(_image_stem(name))
            digest = self._staging.receive(name, self._limited(chunks))
            stored = self._checked(name, digest)
            self._claim(_File(stored, source, field, digest))
            self._staging.keep(name, stored)
        except ArchiveError:
            raise
        except _LimitError as error:
            self._is_full = True
            self._fail("files", str(error))
        except DatasetError as error:
            self._fail(field, str(error))
        except InfluencerAIError as error:
            self._fail("files", str(error))  # Whoever catches it cannot commit what is left.
            raise
        finally:
            if name is not None:
                self._staging.discard(name)

    def _limited(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        size = 0
        for chunk in chunks:
            self._decoding.check()
            size += len(chunk)
            self._bytes += len(chunk)
            if self._bytes > self._limits.max_total_bytes:
                raise _LimitError(f"The files are larger than {self._limits.max_total_bytes:,} bytes together.")
            if size > self._limits.max_file_bytes:
                raise DatasetError(f"The file is larger than {self._limits.max_file_bytes:,} bytes.")
            yield chunk

    def _checked(self, name: str, digest: str) -> str:
        """The name under which a good file of `incoming` is stored."""
        path = self._staging.incoming / name
        if name in TABLES:
            try:
                table_rows(name, read_file(path, limit=self._limits.max_table_bytes))
            except (NoCaptionsError, TableError) as error:
                raise DatasetError(str(error), remedy="Repair or remove the file.") from error
            return name
        if name.endswith(".txt"):
            check_caption(read_file(path, limit=MAX_CAPTION_BYTES), max_length=self._limits.max_caption_length)
            return name
        head = read_head(path)
        if head.startswith(b"PK\3\4"):
            raise DatasetError("This is an archive among the files.", remedy="Unpack it, or upload it as the archive.")
        if head and sniff(head) is None:
            raise DatasetError(
                "This is no image by content.",
                remedy=f"Images (JPEG, PNG, WebP), their captions (.txt), {' and '.join(TABLES)} are accepted.",
            )
        data = read_file(path, limit=self._limits.max_file_bytes)
        self._pixels += min(pixel_count(data), self._limits.max_pixels)
        if self._pixels > (most := self._limits.max_total_pixels):
            raise _LimitError(f"The images have more than {most:,} pixels together.", remedy="Send fewer at a time.")
        self._decoding.facts(data, sha256=digest, max_pixels=self._limits.max_pixels)
        is_named = PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
        return name if is_named else flat_name(name + _SUFFIX_OF[str(sniff(head))])

    def _claim(self, file: _File) -> None:
        other = self._files.setdefault(file.name.casefold(), file)
        if other is not file:
            raise DatasetError(
                f"'{shown(other.source)}' and '{shown(file.source)}' would both be stored as '{file.name}'.",
                remedy="Rename one of them.",
            )

    def _compared(self, errors: dict[str, list[str]], *, replace: bool) -> UploadReport:
        """What the commit would do, when nothing is wrong."""
        found: dict[str, list[str]] = {"added": [], "replaced": [], "unchanged": []}
        for file in sorted(self._files.values(), key=lambda file: file.name):
            try:
                present = digest_there(self._folder, file.name)
                if present and present != file.digest and not replace:
                    raise DatasetError(f"There is another '{file.name}' already.", remedy="Rename it, or replace it.")
                kind = "unchanged" if present == file.digest else "replaced" if present else "added"
                found[kind].append(file.name)
            except DatasetError as error:
                errors.setdefault(file.field, []).append(str(error))
        return UploadReport(
            **{kind: tuple(names) for kind, names in found.items()},
            caption_count=sum(file.is_caption for file in self._files.values()),
        )

    def _check_captions(self, errors: dict[str, list[str]], *, present: Sequence[str]) -> None:
        """Refuse captions that nobody would read."""
        stems = set(self._stems)
        captions = {PurePosixPath(file.name).stem: file for file in self._files.values() if file.is_caption}
        for path in present:
            stem = str(PurePosixPath(path).with_suffix(""))
            if stem in captions.keys() - stems and is_image(self._folder, path):
                stems.add(stem)
        for stem in sorted(captions.keys() - stems):
            text = f"There is no image '{stem}' that this could be the caption of."
            errors.setdefault(captions[stem].field, []).append(text)

    def _fail(self, field: str, text: str) -> None:
        self._errors.setdefault(field, []).append(text)


def _image_stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name
