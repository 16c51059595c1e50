"""Received files: the files of an upload, each classified together with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from influencerai.dataset.caption_tables import NoCaptionsError, Row, TableError, table_rows
from influencerai.dataset.caption_text import MAX_CAPTION_BYTES, is_binary
from influencerai.dataset.classification import HEAD_BYTES, classify
from influencerai.dataset.decoding import Decoding
from influencerai.dataset.file_kinds import CAPTION, HIDDEN, KOHYA_FOLDERS, PICTURE, SYSTEM, TABLE, UNKNOWN, FileKind
from influencerai.dataset.formats import IMAGE_SUFFIXES, SUFFIX_OF, sniff
from influencerai.dataset.image_file import is_other_format, pixel_count
from influencerai.dataset.uploads.received_names import received_path, storable_path
from influencerai.errors import DatasetError
from influencerai.text_files import decode_text


class LimitError(DatasetError):
    """The upload as a whole is over a limit."""


@dataclass(eq=False)
class ReceivedFile:
    """One file of an upload. `path` is the one that its name means, relative; `storable` is that fit for any system."""

    source: str
    """The name as it came; not to be trusted."""
    field: str
    """Of its errors."""
    path: str = ""
    storable: str = ""
    staged: str = ""
    """Its name in the staging; empty where its bytes were not taken."""
    digest: str = ""
    error: str | None = None
    """Its fault, reported only if the file is of a kind that is used."""
    kind: FileKind = UNKNOWN
    rows: Sequence[Row] = ()
    """Of a table of captions."""

    def name(self) -> None:
        """Find its paths.

        Raises:
            DatasetError: its name cannot be read.
        """
        self.path = received_path(self.source)
        self.storable = storable_path(self.path)

    @property
    def is_passed_over(self) -> bool:
        """Whether its name alone marks it as a file of a system or program."""
        return bool(self.storable) and kind_by_name(self.storable) in (SYSTEM, HIDDEN)


@dataclass(kw_only=True)
class PictureLimits:
    """Caps on the pictures of one upload, and what has been used of them."""

    max_files: int
    max_pixels: int
    max_total_pixels: int
    max_file_bytes: int
    max_table_bytes: int
    files: int = 0
    pixels: int = 0


@dataclass(frozen=True)
class Findings:
    """The files that can be used, those that are left out with (reason, remedy), and errors by field."""

    usable: list[ReceivedFile] = field(default_factory=list)
    skipped: list[tuple[ReceivedFile, str, str]] = field(default_factory=list)
    errors: dict[str, list[str]] = field(default_factory=dict)


def kind_by_name(path: str) -> FileKind:
    """The kind of a file as far as its name tells."""
    return classify([path], head=lambda _: b"")[path]


def without_top(files: Sequence[ReceivedFile]) -> None:
    """Take the folder away that holds all files of an archive; one of kohya's, such as `10_ohwx woman`, stays."""
    named = [file for file in files if file.storable and not file.is_passed_over]
    tops = {file.path.partition("/")[0] for file in named}
    if len(tops) == 1 and all("/" in file.path for file in named) and not KOHYA_FOLDERS.fullmatch(top := tops.pop()):
        for file in named:
            file.path = file.path.removeprefix(f"{top}/")
            file.storable = file.storable.partition("/")[2]


def examine(
    files: Sequence[ReceivedFile],
    *,
    present: Sequence[str],
    read: Callable[[str, int], bytes],
    limits: PictureLimits,
    decoding: Decoding,
) -> Findings:
    """The usable files of an upload, with suffixes added to pictures without one.

    Args:
        files: of the upload.
        present: paths of the files in the dataset folder.
        read: the first bytes of a staged file.
        limits: caps on pictures.
        decoding: limits of the process.

    Raises:
        LimitError: the pictures together are over a cap.
    """
    staged = {file.storable: file.staged for file in files if file.staged}
    kinds = classify(
        [*dict.fromkeys((*staged, *(file.storable for file in files if file.storable), *present))],
        head=lambda path: read(staged[path], HEAD_BYTES) if path in staged else b"",
    )
    found = Findings()
    for file in files:
        file.kind = kinds.get(file.storable, UNKNOWN)
        if file.storable and not file.kind.is_used:
            found.skipped.append((file, file.kind.reason, file.kind.remedy))
            continue
        try:
            if file.error is not None:
                raise DatasetError(file.error)
            if (left_out := _checked(file, read=read, limits=limits, decoding=decoding)) is not None:
                found.skipped.append((file, *left_out))
            else:
                found.usable.append(file)
        except LimitError:
            raise
        except DatasetError as error:
            found.errors.setdefault(file.field, []).append(str(error))
    return found


def _checked(
    file: ReceivedFile, *, read: Callable[[str, int], bytes], limits: PictureLimits, decoding: Decoding
) -> tuple[str, str] | None:
    """None for a good file, or (reason, remedy) where it is none that is used; raises DatasetError for a bad one."""
    if file.kind is PICTURE:
        return _checked_picture(file, read(file.staged, limits.max_file_bytes), limits=limits, decoding=decoding)
    if file.kind is CAPTION:
        data = _whole(file, read, limit=MAX_CAPTION_BYTES)
        if is_binary(data, decode_text(data).text):
            raise DatasetError("The caption is no text.", remedy="Save it as plain text.")
        return None
    assert file.kind is TABLE
    try:
        name = PurePosixPath(file.storable).name.lower()
        file.rows = table_rows(name, _whole(file, read, limit=limits.max_table_bytes))
    except NoCaptionsError as error:
        return str(error), error.remedy
    except TableError as error:
        raise DatasetError(str(error), remedy="Repair or remove the file.") from error
    return None


def _checked_picture(
    file: ReceivedFile, data: bytes, *, limits: PictureLimits, decoding: Decoding
) -> tuple[str, str] | None:
    limits.files += 1
    if limits.files > limits.max_files:
        raise LimitError(f"There are more than {limits.max_files:,} images.", remedy="Send fewer at a time.")
    limits.pixels += min(pixel_count(data), limits.max_pixels)
    if limits.pixels > limits.max_total_pixels:
        text = f"The images have more than {limits.max_total_pixels:,} pixels together."
        raise LimitError(text, remedy="Send fewer at a time.")
    try:
        decoding.facts(data, sha256=file.digest, max_pixels=limits.max_pixels)
    except DatasetError as error:
        if data and is_other_format(data):
            return error.message, error.remedy or ""
        raise
    if PurePosixPath(file.storable).suffix.lower() not in IMAGE_SUFFIXES:
        file.storable += SUFFIX_OF[str(sniff(data[:HEAD_BYTES]))]
    return None


def _whole(file: ReceivedFile, read: Callable[[str, int], bytes], *, limit: int) -> bytes:
    data = read(file.staged, limit + 1)
    if len(data) > limit:
        raise DatasetError(f"The file is larger than {limit:,} bytes.")
    return data
