"""Classification: the kind of each file of a folder, an archive or an upload, from path, neighbours and first bytes.

Nothing here touches a disk. The caller passes all paths together, because a mask is known by the picture that it
belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from influencerai.dataset import program_files as table
from influencerai.dataset.companion_words import MASK_WORDS
from influencerai.dataset.companions import Companions
from influencerai.dataset.file_kinds import (
    ARCHIVE,
    BACKUP,
    CACHE,
    CAPTION,
    CAPTION_SUFFIXES,
    CAPTION_TABLES,
    CONTROL,
    DATA_TABLE,
    DOCUMENT,
    DOWNLOAD,
    DRAWN,
    EDITOR,
    HIDDEN,
    KOHYA_TABLES,
    MASK,
    PICTURE,
    RAW,
    REGULARISATION,
    RUN_FILE,
    SIDECAR,
    SYSTEM,
    TABLE,
    UNKNOWN,
    UNREAD_CAPTION,
    UNREAD_TABLE,
    VIDEO,
    WEIGHTS,
    FileKind,
)
from influencerai.dataset.file_names import name_key, stem_of
from influencerai.dataset.formats import FORMATS, IMAGE_SUFFIXES, RAW_SUFFIXES, is_grey, is_text, sniff
from influencerai.domain.output_path import RUN_MARKER

HEAD_BYTES = 512
"""First bytes of a file that tell its kind."""
COMPARED_NAMES = 200
"""Pictures that are looked for in files which may be tables of captions."""

_ALWAYS_MASK = re.compile(r".+-(masklabel|condlabel)", re.IGNORECASE)
"""OneTrainer's, whatever lies beside."""
_WORD = re.compile(r"[^\W\d_]+")


def classify(
    paths: Collection[str], *, head: Callable[[str], bytes], output_folders: Iterable[str] = ()
) -> dict[str, FileKind]:
    """The kind of every file.

    Args:
        paths: all files together, relative to the dataset folder, with forward slashes.
        head: the first HEAD_BYTES of a file, or nothing where it cannot be read; asked only where names do not tell.
        output_folders: folders with the marker of a run, relative ("" is the dataset folder itself), beside those
            whose marker is among `paths`.
    """
    marked = {*output_folders} | {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] == RUN_MARKER}
    folder = _Folder(paths=paths, head=head, output_folders=frozenset(marked))
    return {path: folder.kind(path) for path in paths}


@dataclass(frozen=True)
class _Folder:
    """All files of one folder, by which each is judged."""

    paths: Collection[str]
    head: Callable[[str], bytes]
    output_folders: frozenset[str]
    heads: dict[str, bytes] = field(default_factory=dict)

    def kind(self, path: str) -> FileKind:
        name = PurePosixPath(path)
        suffix = name.suffix.lower()
        if self._is_of_run(name, suffix):
            return RUN_FILE
        for rule in (_of_system, _unfinished, _of_trainer):
            if found := rule(name, suffix):
                return found
        if self._companions.is_conflict(path):
            return BACKUP
        if suffix in CAPTION_SUFFIXES:
            return self._caption(path, name)
        if name.name.lower() in CAPTION_TABLES or KOHYA_TABLES.fullmatch(name.name.lower()):
            return TABLE
        if suffix in IMAGE_SUFFIXES:
            return self._picture(path, name)
        if suffix in RAW_SUFFIXES:
            return RAW if stem_of(path) in self._picture_stems else PICTURE
        return self._other(path, name, suffix)

    def _is_of_run(self, name: PurePosixPath, suffix: str) -> bool:
        """A marked folder below the dataset is the run's; of a dataset that is marked itself, only what runs write."""
        if any(str(parent) in self.output_folders for parent in name.parents if str(parent) != "."):
            return True
        if "" not in self.output_folders:
            return False
        if suffix in IMAGE_SUFFIXES:
            is_drawn = (
                name.parts[0] == "samples"
                if len(name.parts) > 1
                else table.SAMPLE_STEMS.fullmatch(name.stem) is not None
            )
            return is_drawn and not self._has_caption(name)
        return suffix == ".safetensors" and len(name.parts) == 1

    def _caption(self, path: str, name: PurePosixPath) -> FileKind:
        if stem_of(path) in self._pictures_and_stems:
            return CAPTION
        if self._companions.is_version(path):
            return BACKUP
        if table.TEXTS_ABOUT.fullmatch(name.name):
            return DOCUMENT
        return UNREAD_TABLE if self._names_pictures(path) else CAPTION

    def _picture(self, path: str, name: PurePosixPath) -> FileKind:
        if self._has_character_folder and any(table.REGULARISATION_FOLDERS.fullmatch(part) for part in name.parts[:-1]):
            return REGULARISATION
        if _ALWAYS_MASK.fullmatch(name.stem):
            return MASK if name.stem.lower().endswith("masklabel") else CONTROL
        if self._has_caption(name):
            return PICTURE
        if found := self._companion(path):
            return found
        if self._is_drawn(path, name):
            return DRAWN
        words = _WORD.findall(name.stem.lower())
        is_mask = bool(words) and all(word in MASK_WORDS for word in words) and is_grey(self._head(path))
        return MASK if is_mask and len(self._picture_stems) > 1 else PICTURE

    def _companion(self, path: str) -> FileKind | None:
        return self._companions.kind(path) or (BACKUP if self._companions.is_version(path) else None)

    def _is_drawn(self, path: str, name: PurePosixPath) -> bool:
        """Whether a program drew it about a training."""
        if table.SAMPLE_STEMS.fullmatch(name.stem):
            return True
        for folder in list(name.parents)[:-1]:
            is_of_samples = folder.name.lower() in table.SAMPLE_FOLDERS and str(folder.parent) in self._weight_folders
            if is_of_samples or table.LOG_FOLDERS.fullmatch(folder.name):
                return True
        return name.suffix.lower() == ".png" and table.DRAWN_BY.search(self._head(path)) is not None

    def _other(self, path: str, name: PurePosixPath, suffix: str) -> FileKind:
        has_picture = stem_of(path) in self._pictures_and_stems
        if suffix in table.VIDEO_SUFFIXES:
            return SIDECAR if has_picture else VIDEO
        if suffix in table.DATA_SUFFIXES or suffix in table.STRUCTURED_SUFFIXES:
            return self._data(path, name, suffix, has_picture=has_picture)
        if suffix in table.TEXT_SUFFIXES and has_picture:
            return UNREAD_CAPTION
        if suffix in table.TEXT_SUFFIXES and _is_named_like_captions(name):
            return UNREAD_TABLE
        if known := next((kind for of_kind, kind in _BY_SUFFIX.items() if suffix in of_kind), None):
            return known
        head = self._head(path)
        if sniff(head) in FORMATS:
            return self._companion(path) or PICTURE
        if suffix and has_picture and is_text(head):
            return UNREAD_CAPTION
        return DOCUMENT if table.TEXTS_ABOUT.fullmatch(name.name) else UNKNOWN

    def _data(self, path: str, name: PurePosixPath, suffix: str, *, has_picture: bool) -> FileKind:
        """The kind of a file with fields; those that look like captions are told from the others."""
        has_picture = has_picture or any(name_key(str(of)) in self._whole_names for of in _shorter(name))
        kind = SIDECAR if has_picture else DATA_TABLE if suffix in table.DATA_SUFFIXES else DOCUMENT
        if has_picture:
            return UNREAD_CAPTION if table.CAPTION_FIELD.search(self._head(path)) else kind
        if suffix in table.TABLE_SUFFIXES or _is_named_like_captions(name):
            return UNREAD_TABLE
        return UNREAD_TABLE if self._names_pictures(path) else kind

    def _names_pictures(self, path: str) -> bool:
        """Whether a text names pictures in its first lines."""
        head = self._head(path)
        return is_text(head) and any(image in head for image in self._encoded_names)

    def _head(self, path: str) -> bytes:
        if path not in self.heads:
            self.heads[path] = self.head(path)
        return self.heads[path]

    def _has_caption(self, name: PurePosixPath) -> bool:
        return name_key(str(name.with_suffix(""))) in self._caption_stems

    @cached_property
    def _picture_stems(self) -> frozenset[str]:
        return frozenset(stem_of(path) for path in self.paths if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES)

    @cached_property
    def _pictures_and_stems(self) -> frozenset[str]:
        return self._picture_stems | self._whole_names

    @cached_property
    def _whole_names(self) -> frozenset[str]:
        pictures = (path for path in self.paths if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES)
        return frozenset(name_key(path) for path in pictures)

    @cached_property
    def _caption_stems(self) -> frozenset[str]:
        return frozenset(stem_of(path) for path in self.paths if PurePosixPath(path).suffix.lower() in CAPTION_SUFFIXES)

    @cached_property
    def _companions(self) -> Companions:
        return Companions(self.paths)

    @cached_property
    def _encoded_names(self) -> tuple[bytes, ...]:
        """Names of the first pictures, without their folders."""
        pictures = [path for path in self.paths if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES]
        return tuple(PurePosixPath(path).name.encode("utf-8", "replace") for path in pictures[:COMPARED_NAMES])

    @cached_property
    def _weight_folders(self) -> frozenset[str]:
        """Folders that hold weights, "." for the dataset."""
        found = (PurePosixPath(path) for path in self.paths)
        return frozenset(str(path.parent) for path in found if path.suffix.lower() in table.WEIGHT_SUFFIXES)

    @cached_property
    def _has_character_folder(self) -> bool:
        """Whether some picture lies outside of folders of regularisation pictures."""
        parts = (PurePosixPath(stem).parts[:-1] for stem in self._picture_stems)
        return any(not any(table.REGULARISATION_FOLDERS.fullmatch(part) for part in folders) for folders in parts)


_BY_SUFFIX = {
    table.EDITOR_SUFFIXES: EDITOR,
    table.SIDECAR_SUFFIXES: SIDECAR,
    table.ARCHIVE_SUFFIXES: ARCHIVE,
    table.WEIGHT_SUFFIXES: WEIGHTS,
    table.DOCUMENT_SUFFIXES: DOCUMENT,
}


def _of_system(name: PurePosixPath, suffix: str) -> FileKind | None:
    last = name.name.lower()
    if last.startswith(".") and suffix == table.PLACEHOLDER_SUFFIX:
        return DOWNLOAD
    if last in table.SYSTEM_NAMES or last.startswith(("._", "~$")) or last.endswith(table.SYSTEM_ENDINGS):
        return SYSTEM
    if suffix in IMAGE_SUFFIXES and table.SYSTEM_PICTURES.fullmatch(name.stem):
        return SYSTEM
    for part in (part.lower() for part in name.parts[:-1]):
        if part in table.SYSTEM_FOLDERS or part.endswith(table.SYSTEM_FOLDER_SUFFIXES):
            return SYSTEM
    return HIDDEN if any(part.startswith(".") for part in name.parts) else None


def _unfinished(name: PurePosixPath, suffix: str) -> FileKind | None:
    is_in_download = any(PurePosixPath(part).suffix.lower() in table.DOWNLOAD_SUFFIXES for part in name.parts[:-1])
    if suffix in table.DOWNLOAD_SUFFIXES or is_in_download or table.UNCONFIRMED.match(name.name):
        return DOWNLOAD
    is_backup = suffix in table.BACKUP_SUFFIXES or suffix.endswith("_original") or name.name.endswith("~")
    return BACKUP if is_backup or (name.name.startswith("#") and name.name.endswith("#")) else None


def _of_trainer(name: PurePosixPath, suffix: str) -> FileKind | None:
    is_in_cache = any(part.lower() in table.CACHE_FOLDERS for part in name.parts[:-1])
    is_of_cache = suffix in table.WEIGHT_SUFFIXES and (is_in_cache or table.CACHE_STEMS.search(name.stem))
    return CACHE if suffix in (".npz", ".npy") or is_of_cache or name.name.lower() in table.CACHE_NAMES else None


def _shorter(name: PurePosixPath) -> Iterator[PurePosixPath]:
    """The path with fewer and fewer suffixes: `01.png` for `01.png.supplemental-metadata.json`."""
    while name.suffix:
        name = name.with_suffix("")
        yield name


def _is_named_like_captions(name: PurePosixPath) -> bool:
    return any(word in table.CAPTION_WORDS for word in _WORD.findall(name.stem.lower()))
