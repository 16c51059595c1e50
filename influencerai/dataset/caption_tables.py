"""Caption tables: files that hold the captions of many pictures, as rows of file name and caption."""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from influencerai.dataset.caption_text import MAX_CAPTION_BYTES, clean
from influencerai.dataset.file_kinds import KOHYA_TABLES
from influencerai.dataset.file_names import name_key, stem_of
from influencerai.dataset.formats import IMAGE_SUFFIXES
from influencerai.text_files import decode_text

NAME_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path")
TEXT_COLUMNS = ("text", "caption", "prompt", "tags")
_DRIVE = re.compile(r"[A-Za-z]:/")

Row = tuple[str, str]
"""File name as the table spells it, and its caption, cleaned; an empty caption counts as none."""


class TableError(ValueError):
    """A table cannot be used; the message names the line."""


class NoCaptionsError(ValueError):
    """The file holds no captions: it needs columns such as file_name and text."""

    remedy = "Name its columns so, or remove the file."

    def __str__(self) -> str:
        return str(self.__doc__)


class EmptyTableError(NoCaptionsError):
    """No row of the file has a caption."""

    remedy = "Fill in its captions, or remove the file."


def table_rows(name: str, data: bytes) -> list[Row]:
    """The rows of a table; its form is that of its name.

    Raises:
        TableError: the table is broken.
        NoCaptionsError: it is about something else than captions.
    """
    text = decode_text(data).text
    is_kohya = KOHYA_TABLES.fullmatch(name) is not None
    if name.endswith(".csv"):
        rows = list(_csv_rows(text))
    elif name.endswith(".jsonl"):
        rows = list(_jsonl_rows(text))
    else:
        rows = list(_json_rows(text, is_kohya=is_kohya))
    if not is_kohya and not any(caption for _, caption in rows):
        raise EmptyTableError
    return rows


class Pictures:
    """The pictures of a folder by the names that a table may give them."""

    def __init__(self, images: Sequence[str]) -> None:
        self._by_name: dict[str, list[str]] = {}
        for image in images:
            path = name_key(image)
            names = {path, stem_of(image)}
            for name in names | {f"*/{posixpath.basename(name)}" for name in names}:
                for key in {name, _folded(name)}:
                    self._by_name.setdefault(key, []).append(image)

    def named(self, name: str, *, folder: str, anywhere: bool = False) -> list[str]:
        """The pictures that a table in `folder` means by `name`: several where the name has no suffix, or none.

        An absolute path means the picture that ends in the same parts. With `anywhere` a mere name may be that of
        a picture in another folder, if there is one only.
        """
        path = name.replace("\\", "/")
        is_absolute = path.startswith("/") or _DRIVE.match(path) is not None
        if not is_absolute:
            inside = name_key(posixpath.normpath(posixpath.join(folder, path)))
            found = self._by_name.get(inside) or self._by_name.get(_folded(inside), [])
            return found or (self._only(path) if anywhere else [])
        parts = [part for part in path.split("/") if part]
        for start in range(len(parts)):
            tail = name_key("/".join(parts[start:]))
            if found := self._by_name.get(tail) or self._by_name.get(_folded(tail), []):
                return found
        return self._only(parts[-1]) if parts else []

    def _only(self, name: str) -> list[str]:
        """The picture of this name, wherever it lies, if there is one only."""
        found = self._by_name.get(f"*/{name_key(name)}", [])
        return found if len(found) == 1 else []


def _folded(name: str) -> str:
    return f"~{name.casefold()}"


def _jsonl_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TableError(f"line {number} is not JSON ({error}).") from error
            yield _row(row, place=f"line {number}")


def _json_rows(text: str, *, is_kohya: bool) -> Iterator[Row]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise TableError(f"line {error.lineno} is not JSON ({error.msg}, column {error.colno}).") from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"the file is not JSON ({error}).") from error
    if isinstance(document, list):
        for number, row in enumerate(document, start=1):
            yield _row(row, place=f"entry {number}")
    elif isinstance(document, dict):
        if is_kohya and not any(isinstance(value, dict) for value in document.values()):
            raise NoCaptionsError
        for file_name, value in document.items():
            row = value if isinstance(value, dict) else {"text": value}
            if is_kohya and not any(column in row for column in TEXT_COLUMNS):
                continue  # Sizes alone, as meta_lat.json has them for pictures without a caption.
            yield _row({**row, "file_name": file_name}, place=f"the entry of '{clean(file_name)}'")
    else:
        raise TableError('the file holds neither {"file": "caption"} nor a list.')


def _csv_rows(text: str) -> Iterator[Row]:
    """Rows of a CSV file that is separated by commas, semicolons or tabs, with or without names of its columns."""
    first = text.lstrip().partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise TableError(f"line {reader.line_num} is not CSV ({error}).") from error
    if not rows:
        return
    header = [cell.strip().lower() for cell in rows[0][1]]
    if PurePosixPath(header[0]).suffix in IMAGE_SUFFIXES:
        header = ["file_name", "text"]
    else:
        del rows[0]
    if not any(column in header for column in NAME_COLUMNS) or not any(column in header for column in TEXT_COLUMNS):
        raise NoCaptionsError
    for line, cells in rows:
        if len(cells) > len(header):
            raise TableError(f"line {line} has {len(cells)} cells, but there are {len(header)} columns.")
        row = dict(zip(header, cells, strict=False))
        yield _row({**dict.fromkeys(header, ""), **row}, place=f"line {line}")


def _row(row: Any, *, place: str) -> Row:
    """One row; a caption that is null counts as none, and tags follow a caption as in kohya's trainer."""
    name = _first(row, NAME_COLUMNS) if isinstance(row, Mapping) else None
    if not isinstance(name, str):
        raise TableError(f'{place} has no "file_name".')
    if not any(column in row for column in TEXT_COLUMNS):
        raise TableError(f'{place} has neither "text" nor "caption".')
    text, tags = _first(row, TEXT_COLUMNS[:-1]), row.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        tags = ", ".join(tags)
    if not isinstance(text, str | None) or not isinstance(tags, str | None):
        raise TableError(f"the caption in {place} is not a text.")
    caption = ", ".join(part for part in (clean(text or ""), clean(tags or "")) if part)
    if len(caption.encode("utf-8", "replace")) > MAX_CAPTION_BYTES:
        raise TableError(f"the caption in {place} is larger than {MAX_CAPTION_BYTES:,} bytes.")
    return name, caption


def _first(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    return next((row[column] for column in columns if column in row), None)
