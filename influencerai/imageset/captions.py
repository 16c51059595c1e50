"""Captions: where an image's text comes from, in order of precedence.

1. `<image>.txt`, else `<image>.caption`, beside the image
2. `metadata.jsonl`, one `{"file_name": ..., "text" | "caption": ...}` per line
3. `captions.json`, `{"<file>": "<caption>"}` or a list of such rows
4. the name of a kohya folder: `10_ohwx woman/` gives `ohwx woman`
5. the trigger word

Tables may lie in any folder and name files relative to it; the one nearest to the image wins. An empty
caption counts as none. The lines of one caption are joined with commas, or with a blank where a line ends in
punctuation (trainers differ here: kohya's reads the first line and silently drops the rest).
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from influencerai.errors import DatasetError
from influencerai.imageset.folder import read_file
from influencerai.imageset.report import CaptionSource

TEXT_SUFFIXES = (".txt", ".caption")
TABLES: tuple[CaptionSource, ...] = ("metadata.jsonl", "captions.json")
MAX_CAPTION_BYTES = 2**16
MAX_TABLE_BYTES = 2**26

LISTED_NAMES = 5

_KOHYA_FOLDER = re.compile(r"(\d{1,3})_(.*)", re.DOTALL)


@dataclass(frozen=True)
class Caption:
    """The text of one image and what is odd about it."""

    text: str = ""
    source: CaptionSource = "none"
    warnings: tuple[str, ...] = ()


@dataclass
class Captions:
    """The captions of a folder by image path, and what is wrong with the files that hold them."""

    by_image: dict[str, Caption] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class KohyaFolder:
    """A folder that is named like `10_ohwx woman`, by its path in the dataset."""

    path: str
    repeats: int
    caption: str


class _TableError(ValueError):
    """A table cannot be used; the message names the line."""


def read_captions(
    root: Path,
    *,
    files: Sequence[str],
    images: Sequence[str],
    trigger_word: str | None = None,
    follow_links: bool = False,
) -> Captions:
    """The caption of each of `images`; `files` is everything in the folder, both relative to `root`.

    With `follow_links` a file may be a link that leaves the folder.
    """
    found = Captions()
    texts = _text_files(files)
    tables: dict[CaptionSource, dict[str, str]] = {
        "metadata.jsonl": _read_tables(
            root, "metadata.jsonl", files=files, images=images, found=found, follow_links=follow_links
        ),
        "captions.json": _read_tables(
            root, "captions.json", files=files, images=images, found=found, follow_links=follow_links
        ),
    }
    for image in images:
        found.by_image[image] = _caption(
            root, image, texts=texts, tables=tables, trigger_word=trigger_word, follow_links=follow_links
        )
    stems = {_stem(image) for image in images}
    found.warnings += [f"{path}: there is no image of this name." for stem, path in texts.items() if stem not in stems]
    return found


def kohya_folder(image: str) -> KohyaFolder | None:
    """The nearest folder of the image that gives repeats and a caption by its name.

    Numbers of four digits are years. The dataset folder itself does not count: what a set holds does not
    depend on what it is called.
    """
    for folder in PurePosixPath(image).parents:
        if match := _KOHYA_FOLDER.fullmatch(folder.name):
            return KohyaFolder(str(folder), int(match[1]), clean(match[2]))
    return None


def clean(text: str) -> str:
    """A caption on one line, without surplus white space, encodable as UTF-8."""
    text = text.replace("\0", " ").encode("utf-8", "replace").decode()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    joined = ""
    for line in filter(None, lines):
        separator = "" if not joined else " " if joined[-1] in ".,;:!?" else ", "
        joined += separator + line
    return joined


def contains_trigger(caption: str, trigger_word: str) -> bool:
    """Whether the trigger word stands in the caption as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(clean(trigger_word))}(?!\w)", caption, re.IGNORECASE) is not None


def _caption(
    root: Path,
    image: str,
    *,
    texts: Mapping[str, str],
    tables: Mapping[CaptionSource, Mapping[str, str]],
    trigger_word: str | None,
    follow_links: bool,
) -> Caption:
    warnings: list[str] = []
    if path := texts.get(_stem(image)):
        text, warnings = _read_text(root, path, follow_links=follow_links)
        if text:
            return Caption(text, "txt", tuple(warnings))
    for source, table in tables.items():
        if text := table.get(image, ""):
            return Caption(text, source, tuple(warnings))
    folder = kohya_folder(image)
    if folder and folder.caption:
        return Caption(folder.caption, "folder", tuple(warnings))
    if trigger_word:
        return Caption(clean(trigger_word), "trigger word", tuple(warnings))
    return Caption(warnings=tuple(warnings) or ("The image has no caption.",))


def _text_files(files: Sequence[str]) -> dict[str, str]:
    """{path without suffix: caption file}; `.txt` wins over `.caption`."""
    found: dict[str, str] = {}
    for suffix in reversed(TEXT_SUFFIXES):
        found |= {_stem(path): path for path in files if PurePosixPath(path).suffix.lower() == suffix}
    return dict(sorted(found.items()))


def _read_text(root: Path, path: str, *, follow_links: bool) -> tuple[str, list[str]]:
    """A caption file's text, cleaned, with warnings; UTF-16 and Windows-1252 are read too."""
    try:
        data = read_file(root / path, limit=MAX_CAPTION_BYTES, inside=None if follow_links else root)
    except DatasetError as error:
        return "", [f"{path}: {error}"]
    warnings = []
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raw = data.decode("utf-16", "replace")
    else:
        try:
            raw = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raw = data.decode("cp1252", "replace")
            warnings.append(f"{path} is not UTF-8 and is read as Windows-1252.")
    lines = sum(1 for line in raw.splitlines() if line.strip())
    if lines == 0:
        warnings.append(f"{path} is empty.")
    elif lines > 1:
        warnings.append(f"{path} has {lines} lines, which are joined to one caption.")
    return clean(raw), warnings


def _read_tables(
    root: Path, name: str, *, files: Sequence[str], images: Sequence[str], found: Captions, follow_links: bool
) -> dict[str, str]:
    """{image: caption} from every file called `name`, the outermost first so that the nearest wins."""
    known = {_stem(image): image for image in reversed(images)} | {image: image for image in images}
    captions: dict[str, str] = {}
    paths = [path for path in files if posixpath.basename(path).lower() == name]
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        try:
            data = read_file(root / path, limit=MAX_TABLE_BYTES, inside=None if follow_links else root)
            rows = list(_jsonl_rows(data) if name.endswith("jsonl") else _json_rows(data))
        except (DatasetError, _TableError) as error:
            found.errors.append(f"{path}: {error} Repair or remove the file.")
            continue
        folder = posixpath.dirname(path)
        foreign = 0
        for file_name, text in rows:
            image = known.get(posixpath.normpath(posixpath.join(folder, file_name.replace("\\", "/"))))
            if image is None:
                foreign += 1
                if foreign <= LISTED_NAMES:
                    found.warnings.append(f"{path}: there is no image '{clean(file_name)}'.")
            elif text:
                captions[image] = text
        if foreign > LISTED_NAMES:
            found.warnings.append(f"{path}: and {foreign - LISTED_NAMES:,} more names without an image.")
    return captions


def _jsonl_rows(data: bytes) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _TableError(f"line {number} is not JSON ({error}).") from error
            yield _row(row, place=f"line {number}")


def _json_rows(data: bytes) -> Iterator[tuple[str, str]]:
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise _TableError(f"line {error.lineno} is not JSON ({error.msg}, column {error.colno}).") from error
    except (ValueError, RecursionError) as error:
        raise _TableError(f"the file is not JSON ({error}).") from error
    if isinstance(document, list):
        for number, row in enumerate(document, start=1):
            yield _row(row, place=f"entry {number}")
    elif isinstance(document, dict):
        for file_name, value in document.items():
            row = value if isinstance(value, dict) else {"text": value}
            yield _row({**row, "file_name": file_name}, place=f"the entry of '{clean(file_name)}'")
    else:
        raise _TableError('the file holds neither {"file": "caption"} nor a list.')


def _row(row: Any, *, place: str) -> tuple[str, str]:
    """(file name, cleaned caption) of one row; a caption that is null counts as none."""
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise _TableError(f'{place} has no "file_name".')
    if "text" not in row and "caption" not in row:
        raise _TableError(f'{place} has neither "text" nor "caption".')
    text = row["text"] if "text" in row else row["caption"]
    if not isinstance(text, str | None):
        raise _TableError(f"the caption in {place} is not a text.")
    if text and len(text.encode("utf-8", "replace")) > MAX_CAPTION_BYTES:
        raise _TableError(f"the caption in {place} is larger than {MAX_CAPTION_BYTES:,} bytes.")
    return row["file_name"], clean(text or "")


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))
