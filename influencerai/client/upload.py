"""Upload: which files of a folder go to the server, under which names, and in which portions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from influencerai.client.connection import Upload
from influencerai.domain.dataset import SkippedFile
from influencerai.domain.output_path import RUN_MARKER
from influencerai.errors import ValidationError

IMAGES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".heic", ".heif", ".hif", ".avif"}
    | {".gif", ".bmp", ".dib", ".tif", ".tiff", ".jxl"}
)
"""Names of pictures. The server knows the formats that it reads, and reports the others with a remedy."""
CAPTIONS = (".txt", ".caption", ".tags")
TABLES = frozenset({"metadata.jsonl", "metadata.csv", "captions.json", "captions.jsonl", "captions.csv"})
_TEXTS = frozenset({".md", ".rst", ".rtf", ".doc", ".docx", ".odt", ".json", ".yaml", ".yml", ".toml", ".xml"})
"""Suffixes of files that may be captions, in forms that are not read: by the name of a picture, or a word in theirs."""
_TABLES = frozenset({".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods"})
_ROWS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
_CAPTION_WORDS = frozenset(
    {"caption", "captions", "metadata", "prompt", "prompts", "tag", "tags", "texts"}
    | {"description", "descriptions", "annotation", "annotations"}
)
_WORD = re.compile(r"[^\W\d_]+")
MOST_FILES = 200
MOST_BYTES = 2**28
"""Of one request, so that a fault costs a part of a large folder only."""
_LISTED = 3
_SAMPLES = "samples"
_SYSTEM_FOLDERS = frozenset({"__macosx", "__pycache__", "@eadir"})
_NO_PICTURE = ("The name is neither that of a picture nor that of captions.", "Pack it into a zip if it is one.")
_UNREAD = (
    "It looks like captions, but they are not read from files of this form or name.",
    "Save captions as metadata.jsonl, metadata.csv or a .txt file beside each picture.",
)
_HIDDEN = ("Hidden files and folders are not uploaded.", "Rename it if it belongs to the dataset.")
_OF_A_RUN = ("A training wrote this folder.", "Upload the pictures that you want from it by themselves.")
_NO_IMAGE = ("There is no image of this name.", "Give it the name of its image.")
_UNREADABLE = ("The file is a link to nothing, or no regular file.", "Replace it by the file itself.")


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file here, and its path in the dataset's folder, with forward slashes."""

    path: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class LocalFolder:
    """The files of each request, an image beside its captions, and what stays here."""

    batches: tuple[tuple[LocalFile, ...], ...]
    skipped: tuple[SkippedFile, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about captions that stay here."""
        found: list[str] = []
        for reason, remedy in (_UNREAD, _NO_IMAGE):
            if names := [file.name for file in self.skipped if file.reason == reason]:
                more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
                found.append(f"{', '.join(names[:_LISTED])}{more}: {reason} {remedy}")
        return tuple(found)


def local_folder(source: Path) -> LocalFolder:
    """What is uploaded of a folder with all below it; `source` alone where it is a file.

    Raises:
        ValidationError: there is nothing to upload.
    """
    if source.is_file():
        return LocalFolder(batches=((LocalFile(path=source, name=source.name),),))
    files, skipped = _listed(source)
    found: list[list[LocalFile]] = [[]]
    size = 0
    for together in _together(source, files, skipped):
        bytes_more = sum(file.path.stat().st_size for file in together)
        if found[-1] and (len(found[-1]) + len(together) > MOST_FILES or size + bytes_more > MOST_BYTES):
            found.append([])
            size = 0
        found[-1] += together
        size += bytes_more
    ordered = sorted(skipped, key=lambda file: file.name)
    return LocalFolder(batches=tuple(tuple(batch) for batch in found), skipped=tuple(ordered))


@contextmanager
def opened(files: Iterable[LocalFile], *, fields: Mapping[str, str]) -> Iterator[Upload]:
    """The files as a form, open until the end of the block.

    Raises:
        ValidationError: one cannot be read.
    """
    with ExitStack() as stack:
        try:
            found = [(file.name, stack.enter_context(file.path.open("rb"))) for file in files]
        except OSError as error:
            raise ValidationError(f"{error.filename} cannot be read: {error.strerror}.") from error
        yield Upload(files=found, fields=fields)


def _listed(folder: Path) -> tuple[list[LocalFile], list[SkippedFile]]:
    """Every file below a folder that is neither hidden nor a run's, and what was passed over."""
    files: list[LocalFile] = []
    skipped: list[SkippedFile] = []

    def fail(error: OSError) -> None:
        raise error

    try:
        for place, folders, names in os.walk(folder, onerror=fail):
            here = Path(place).relative_to(folder)
            for name in sorted(folders):
                if reason := _reason_against(Path(place, name), is_root=place == str(folder), siblings=names):
                    folders.remove(name)
                    skipped.append(_skipped(f"{(here / name).as_posix()}/", reason))
            folders.sort()
            for name in names:
                path, shown = Path(place, name), (here / name).as_posix()
                if name.startswith("."):
                    skipped += [] if name == RUN_MARKER else [_skipped(shown, _HIDDEN)]
                elif path.is_file():
                    files.append(LocalFile(path=path, name=shown))
                else:
                    skipped.append(_skipped(shown, _UNREADABLE))
    except OSError as error:
        raise ValidationError(
            f"{folder} cannot be uploaded: {error.strerror}.", remedy="Name a folder of images, an image or a zip."
        ) from error
    return sorted(files, key=lambda file: file.name), skipped


def _reason_against(folder: Path, *, is_root: bool, siblings: Sequence[str]) -> tuple[str, str] | None:
    """(reason, remedy) where a folder is passed over with all in it."""
    if folder.name.startswith(".") or folder.name.lower() in _SYSTEM_FOLDERS:
        return _HIDDEN
    is_of_run = (folder / RUN_MARKER).exists() or (is_root and RUN_MARKER in siblings and folder.name == _SAMPLES)
    return _OF_A_RUN if is_of_run else None


def _together(folder: Path, files: Sequence[LocalFile], skipped: list[SkippedFile]) -> Iterator[tuple[LocalFile, ...]]:
    """What belongs into one request: tables of captions, then each image with its captions."""
    images = [file for file in files if file.path.suffix.lower() in IMAGES]
    if not images:
        raise ValidationError(
            f"There are no images in {folder}.", remedy="Name a folder of pictures, such as JPEG or PNG."
        )
    tables = tuple(file for file in files if _is_table(file.path.name))
    captions: dict[str, list[LocalFile]] = {}
    stems = {_stem(image.name) for image in images}
    for file in files:
        if file.path.suffix.lower() in CAPTIONS:
            captions.setdefault(_stem(file.name), []).append(file)
        elif file not in images and file not in tables:
            skipped.append(_skipped(file.name, _UNREAD if _looks_like_captions(file, stems) else _NO_PICTURE))
    if tables:
        yield tables
    for image in images:
        beside = [*captions.pop(_stem(image.name), ()), *captions.pop(image.name.casefold(), ())]
        yield (image, *beside)  # once, where two images share a caption
    skipped += [_skipped(file.name, _NO_IMAGE) for files in captions.values() for file in files]


def _looks_like_captions(file: LocalFile, stems: Set[str]) -> bool:
    """Whether a file that stays here may hold captions; `stems` are the pictures' names without suffix."""
    suffix = file.path.suffix.lower()
    if suffix in _TABLES or (suffix in _TEXTS and _stem(file.name) in stems):
        return True
    return suffix in _TEXTS | _ROWS and any(word in _CAPTION_WORDS for word in _WORD.findall(file.path.stem.lower()))


def _is_table(name: str) -> bool:
    lower = name.lower()
    return lower in TABLES or (lower.startswith("meta_") and lower.endswith(".json"))


def _stem(name: str) -> str:
    return name[: name.rindex(".")].casefold()


def _skipped(name: str, why: tuple[str, str]) -> SkippedFile:
    return SkippedFile(name=name, reason=why[0], remedy=why[1])
