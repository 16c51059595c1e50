"""Captions: where an image's text comes from, in order of precedence.

1. a file beside the image: `01.txt`, else `01.caption`, else `01.tags`; of each, `01.png.txt` where `01.txt` is absent
2. a table that names the image: `metadata.jsonl`, `metadata.csv`, `captions.json`, `captions.jsonl`, `captions.csv`,
   then kohya's `meta_cap.json`, `meta_lat.json` and the like
3. the name of a kohya folder: `10_ohwx woman/` gives `ohwx woman`
4. the trigger word

Tables may lie in any folder and name files relative to it, or absolutely; the one nearest to the image wins. An empty
caption counts as none. The lines of one caption are joined (trainers differ here: kohya's reads the first line and
silently drops the rest). Names are compared in one Unicode form, and without regard to case where that finds a picture
that has no caption otherwise.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from influencerai.dataset.caption_tables import NoCaptionsError, Pictures, TableError, table_rows
from influencerai.dataset.caption_text import MAX_CAPTION_BYTES, clean, is_binary
from influencerai.dataset.file_kinds import (
    CAPTION,
    CAPTION_SUFFIXES,
    CAPTION_TABLES,
    DATA_TABLE,
    DOCUMENT,
    KOHYA_FOLDERS,
    KOHYA_TABLES,
    SIDECAR,
    TABLE,
    UNREAD_CAPTION,
    UNREAD_TABLE,
    FileKind,
)
from influencerai.dataset.file_names import name_key, stem_of
from influencerai.dataset.folder import read_file, read_head
from influencerai.dataset.program_files import CAPTION_FIELD, STRUCTURED_SUFFIXES
from influencerai.dataset.report import CaptionSource, listed
from influencerai.errors import DatasetError
from influencerai.text_files import decode_text

MAX_TABLE_BYTES = 2**26
PEEKED_BYTES = 2**16
"""First bytes of a file that is not read, in which names of pictures or fields make it look like captions."""
LISTED_NAMES = 5
COMPARED_NAMES = 200

_READABLE = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".psv", *STRUCTURED_SUFFIXES)


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
    notes: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """Files that look like captions and give none."""


@dataclass(frozen=True)
class KohyaFolder:
    """A folder that is named like `10_ohwx woman`, by its path in the dataset."""

    path: str
    repeats: int
    caption: str


def read_captions(
    root: Path,
    *,
    kinds: Mapping[str, FileKind],
    images: Sequence[str],
    trigger_word: str | None = None,
    follow_links: bool = False,
) -> Captions:
    """The caption of each of `images`.

    Args:
        root: the dataset folder.
        kinds: every file of the folder, relative to `root`, with its kind.
        images: the pictures among them.
        trigger_word: captions images that have no other caption.
        follow_links: whether a file may be a link that leaves the folder.
    """
    reading = _Reading(root, kinds=kinds, images=images, follow_links=follow_links)
    tables = {name: reading.tables(name) for name in (*CAPTION_TABLES, "meta_cap.json")}
    for image in images:
        reading.found.by_image[image] = reading.caption(image, tables=tables, trigger_word=trigger_word)
    reading.report_files()
    return reading.found


def kohya_folder(image: str) -> KohyaFolder | None:
    """The nearest folder of the image that gives repeats and a caption by its name.

    Numbers of four digits are years. The dataset folder itself does not count: what a set holds does not
    depend on what it is called.
    """
    for folder in PurePosixPath(image).parents:
        if match := KOHYA_FOLDERS.fullmatch(folder.name):
            return KohyaFolder(str(folder), int(match[1]), clean(match[2]))
    return None


class _Reading:
    """One reading of all captions of a folder."""

    def __init__(self, root: Path, *, kinds: Mapping[str, FileKind], images: Sequence[str], follow_links: bool) -> None:
        self.found = Captions()
        self._root = root
        self._inside = None if follow_links else root
        self._kinds = kinds
        self._images = images
        self._pictures = Pictures(images)
        texts = sorted(path for path, kind in kinds.items() if kind is CAPTION)
        self._texts: dict[str, list[str]] = {}
        for suffix in CAPTION_SUFFIXES:
            for path in texts:
                if path.lower().endswith(suffix):
                    self._texts.setdefault(stem_of(path), []).append(path)
        self._folded = {stem.casefold(): paths for stem, paths in sorted(self._texts.items())}
        self._users: dict[str, list[str]] = {}
        """Pictures by the caption file that lies beside them."""
        self._second: list[str] = []
        self._renamed: list[str] = []

    def tables(self, name: str) -> dict[str, str]:
        """{image: caption} from every table called `name`, the outermost first so that the nearest wins."""
        found: dict[str, str] = {}
        paths = [path for path, kind in self._kinds.items() if kind is TABLE and _table_name(path) == name]
        for path in sorted(paths, key=lambda path: (path.count("/"), path)):
            try:
                data = read_file(self._root / path, limit=MAX_TABLE_BYTES, inside=self._inside)
                rows = table_rows(posixpath.basename(path).lower(), data)
            except NoCaptionsError as error:
                self.found.warnings.append(f"{path}: {error} {error.remedy}")
                self.found.unused.append(path)
                continue
            except (DatasetError, TableError) as error:
                self.found.errors.append(f"{path}: {error} Repair or remove the file.")
                continue
            foreign = []
            for file_name, text in rows:
                is_kohya = KOHYA_TABLES.fullmatch(posixpath.basename(path).lower()) is not None
                named = self._pictures.named(file_name, folder=posixpath.dirname(path), anywhere=is_kohya)
                if not named:
                    foreign.append(clean(file_name))
                elif text:
                    found |= dict.fromkeys(named, text)
            self._report_foreign(path, foreign)
        return found

    def caption(self, image: str, *, tables: Mapping[str, Mapping[str, str]], trigger_word: str | None) -> Caption:
        """The caption of one image, from the first source that has a text."""
        text, warnings = self._beside(image)
        if text:
            return Caption(text, "txt", warnings)
        for name, table in tables.items():
            if text := table.get(image, ""):
                return Caption(text, _SOURCES[name], warnings)
        folder = kohya_folder(image)
        if folder and folder.caption:
            return Caption(folder.caption, "folder", warnings)
        if trigger_word:
            return Caption(clean(trigger_word), "trigger word", warnings)
        return Caption(warnings=warnings or ("The image has no caption.",))

    def report_files(self) -> None:
        """Say which files of captions are shared, passed over or without an image."""
        found = self.found
        shared = [f"{' and '.join(images)} ({path})" for path, images in self._users.items() if len(images) > 1]
        if shared:
            found.warnings.append(
                f"Images of the same name share one caption: {listed(shared)}. Rename them if the captions differ."
            )
        orphans = sorted(path for paths in self._texts.values() for path in paths if path not in self._users)
        if len(orphans) == 1:
            found.warnings.append(f"{orphans[0]}: there is no image of this name. Give it the name of its image.")
        elif orphans:
            found.warnings.append(
                f"{len(orphans):,} captions have no image of their name: {listed(orphans)}. "
                "Give them the names of their images."
            )
        if self._second:
            found.notes.append(
                f"Another file of the same name is the caption, so these are not used: {listed(self._second)}."
            )
        if self._renamed:
            found.notes.append(f"Names differ in case or Unicode form only: {listed(self._renamed)}.")
        found.unused += orphans
        named = [path for path, kind in self._kinds.items() if kind in (UNREAD_CAPTION, UNREAD_TABLE)]
        if lookalikes := sorted(path for path, kind in self._kinds.items() if self._looks_like(path, kind)):
            found.warnings.append(
                f"Files look like captions and are not read: {listed(lookalikes)}. Tables are called "
                f"{', '.join(CAPTION_TABLES)} or meta_cap.json, captions of one image like it, with .txt."
            )
        found.unused += [*named, *lookalikes]

    def _beside(self, image: str) -> tuple[str, tuple[str, ...]]:
        """The first text that the caption files of an image have, and what is odd about it."""
        text = ""
        warnings: list[str] = []
        for path in self._files_beside(image):
            self._users.setdefault(path, []).append(image)
            own, odd = self._read(path)
            if text and own and own != text:
                self._second.append(path)
            elif not text:
                text, warnings = own, [*warnings, *odd]
        return text, tuple(warnings)

    def _files_beside(self, image: str) -> list[str]:
        stem, path = stem_of(image), name_key(image)
        found = [*self._texts.get(stem, ()), *self._texts.get(path, ())]
        if not found:
            found = [*self._folded.get(stem.casefold(), ()), *self._folded.get(path.casefold(), ())]
        stems = {str(PurePosixPath(image).with_suffix("")), image}
        self._renamed += [f"{of} for {image}" for of in found if str(PurePosixPath(of).with_suffix("")) not in stems]
        return found

    def _read(self, path: str) -> tuple[str, list[str]]:
        """A caption file's text, cleaned, with warnings."""
        try:
            data = read_file(self._root / path, limit=MAX_CAPTION_BYTES, inside=self._inside)
        except DatasetError as error:
            return "", [f"{path}: {error}"]
        decoded = decode_text(data)
        if is_binary(data, decoded.text):
            self.found.unused.append(path)
            return "", [f"{path} is no text and is not read. Save the caption as plain text."]
        warnings = [f"{path} {decoded.warning}"] if decoded.warning else []
        lines = sum(1 for line in decoded.text.splitlines() if line.strip())
        if lines == 0:
            warnings.append(f"{path} is empty.")
        elif lines > 1 and not path.lower().endswith(".tags"):
            warnings.append(f"{path} has {lines} lines, which are joined to one caption.")
        return clean(decoded.text), warnings

    def _report_foreign(self, path: str, names: Sequence[str]) -> None:
        found = [f"{path}: there is no image '{name}'." for name in names[:LISTED_NAMES]]
        if len(names) > LISTED_NAMES:
            found.append(f"{path}: and {len(names) - LISTED_NAMES:,} more names without an image.")
        self.found.warnings += found
        self.found.unused += [path] if names else []

    def _looks_like(self, path: str, kind: FileKind) -> bool:
        """Whether a file that is not read names pictures, or lies beside one and has a field of captions."""
        if kind not in (DATA_TABLE, SIDECAR, DOCUMENT) or not path.lower().endswith(_READABLE):
            return False
        try:
            head = read_head(self._root / path, size=PEEKED_BYTES, inside=self._inside)
        except DatasetError:
            return False
        text = decode_text(head).text
        if kind is SIDECAR:
            return CAPTION_FIELD.search(text.encode("utf-8", "replace")) is not None
        return any(posixpath.basename(image) in text for image in self._images[:COMPARED_NAMES])


_SOURCES: dict[str, CaptionSource] = {
    "metadata.jsonl": "metadata.jsonl",
    "metadata.csv": "metadata.csv",
    "captions.json": "captions.json",
    "captions.jsonl": "captions.jsonl",
    "captions.csv": "captions.csv",
    "meta_cap.json": "meta_cap.json",
}


def _table_name(path: str) -> str:
    """The name under which a table is read: all of kohya's count as one."""
    name = posixpath.basename(path).lower()
    return "meta_cap.json" if KOHYA_TABLES.fullmatch(name) else name
