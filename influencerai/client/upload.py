"""Upload: which files of a folder go to the server, and in which portions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from influencerai.client.connection import Upload
from influencerai.errors import ValidationError

IMAGES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"})
TABLES = frozenset({"metadata.jsonl", "captions.json"})
MOST_FILES = 200
MOST_BYTES = 2**28
"""Of one request, so that a fault costs a part of a large folder only."""


def batches(source: Path) -> tuple[tuple[Path, ...], ...]:
    """The files of each request, an image beside its caption; `source` alone where it is a file.

    Raises:
        ValidationError: there is nothing to upload.
    """
    if source.is_file():
        return ((source,),)
    found: list[list[Path]] = [[]]
    size = 0
    for files in _together(source):
        bytes_more = sum(path.stat().st_size for path in files)
        if found[-1] and (len(found[-1]) + len(files) > MOST_FILES or size + bytes_more > MOST_BYTES):
            found.append([])
            size = 0
        found[-1] += files
        size += bytes_more
    return tuple(tuple(batch) for batch in found)


@contextmanager
def opened(files: Iterable[Path], *, fields: Mapping[str, str]) -> Iterator[Upload]:
    """The files as a form, open until the end of the block.

    Raises:
        ValidationError: one cannot be read.
    """
    with ExitStack() as stack:
        try:
            found = [(path.name, stack.enter_context(path.open("rb"))) for path in files]
        except OSError as error:
            raise ValidationError(f"{error.filename} cannot be read: {error.strerror}.") from error
        yield Upload(files=found, fields=fields)


def _together(folder: Path) -> Iterator[tuple[Path, ...]]:
    """What belongs into one request: tables of captions, then each image with its caption."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise ValidationError(
            f"{folder} cannot be uploaded: {error.strerror}.", remedy="Name a folder of images, an image or a zip."
        ) from error
    images = [path for path in files if path.suffix.lower() in IMAGES]
    if not images:
        raise ValidationError(f"There are no images in {folder}.", remedy="Name a folder of JPEG, PNG or WebP files.")
    captions = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    if tables := tuple(path for path in files if path.name.lower() in TABLES):
        yield tables
    for path in images:
        caption = captions.pop(path.stem, None)  # once, where two images share it
        yield (path,) if caption is None else (path, caption)
