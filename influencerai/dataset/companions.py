"""Companions: masks, control images, thumbnails and earlier versions, known by the picture that they belong to.

`01_mask.png`, `mask_01.png`, `01.png.mask.png` and `01.mask` are masks where `01.png` lies beside, `masks/01.png` and
`masks/01_mask.png` where another folder has `01`. Where no picture has the name, such a file is a picture itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from influencerai.dataset import companion_words as table
from influencerai.dataset.file_kinds import CAPTION_SUFFIXES, CONTROL, KOHYA_FOLDERS, MASK, THUMBNAIL, FileKind
from influencerai.dataset.file_names import name_key
from influencerai.dataset.formats import IMAGE_SUFFIXES
from influencerai.dataset.program_files import BACKUP_SUFFIXES

_DIGIT_BEFORE_WORD = re.compile(r"(?<=\d)(?=[a-z])")
_SHARE_WITH_PARTNER = 0.5
"""Of the files of a folder: from here on the others are companions too."""
_MOST_WORDS = 16
"""Beside the name of a picture; sync programs write names and times."""


class Companions:
    """The pictures and captions of one dataset, by which files are known that belong to one of them.

    Args:
        paths: every file of the dataset.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self._pictures = [path for path in paths if _suffix(path) in IMAGE_SUFFIXES]
        self._names = {name for path in self._pictures for name in _names(path)}
        texts = (path for path in paths if _suffix(path) in CAPTION_SUFFIXES)
        self._names_and_texts = self._names.union(name for path in texts for name in _names(path))
        self._folders: dict[str, FileKind | None] = {}
        self._folder_kinds: dict[str, FileKind | None] = {}
        self._elsewhere: dict[str, bool] = {}
        self._above: dict[str, list[tuple[PurePosixPath, FileKind]]] = {}

    def is_conflict(self, path: str) -> bool:
        """Whether a sync program keeps another version of a picture or caption in it."""
        if "conflict" not in path.lower():
            return False
        return any(
            partner in self._names_and_texts and any(table.CONFLICT.fullmatch(word) for word in _words(rest))
            for partner, rest in _split(PurePosixPath(path))
        )

    def is_version(self, path: str) -> bool:
        """Whether a program keeps an earlier or unsaved version of a picture or caption in it."""
        name = PurePosixPath(path)
        suffix, whole = name.suffix.lower(), _key(str(name.with_suffix("")))
        if suffix not in IMAGE_SUFFIXES and suffix not in CAPTION_SUFFIXES and suffix and whole in self._whole_names:
            return True  # `01.png.1`, `01.png.save`
        inner = PurePosixPath(whole)
        if inner.suffix in BACKUP_SUFFIXES and str(inner.with_suffix("")) in self._names:
            return True  # `01.old.png`
        if any(partner in self._names and _is_earlier(_words(rest)) for partner, rest in _split(name)):
            return True
        is_aside = any(_is_backup(_words(part)) for part in name.parts[:-1])
        return is_aside and suffix in IMAGE_SUFFIXES and _key(name.stem) in self._plain_stems

    def kind(self, path: str) -> FileKind | None:
        """MASK, CONTROL or THUMBNAIL; None where no picture has the name that this would belong to."""
        name = PurePosixPath(path)
        if table.SCRATCH_NAMES.fullmatch(name.name):
            return MASK
        for partner, rest in _split(name):
            if partner in self._names and (found := _companion(_words(rest))):
                return found
        if name.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        if self._has_picture_noun_beside(name) and (found := _companion(_words(name.stem))):
            return found
        for folder, kind in self._companion_folders(name):
            if self._of_folder(folder) or self._has_partner_elsewhere(name):
                return kind
        return None

    def _companion_folders(self, name: PurePosixPath) -> list[tuple[PurePosixPath, FileKind]]:
        """The folders of a file that are named for companions, the nearest first."""
        if (key := str(name.parent)) not in self._above:
            kinds = ((folder, self._kind_of_folder(folder)) for folder in list(name.parents)[:-1])
            self._above[key] = [(folder, kind) for folder, kind in kinds if kind]
        return self._above[key]

    def _has_picture_noun_beside(self, name: PurePosixPath) -> bool:
        folder = "" if str(name.parent) == "." else f"{_key(str(name.parent))}/"
        return any(folder + noun in self._names for noun in table.PICTURE_NOUNS)

    def _kind_of_folder(self, folder: PurePosixPath) -> FileKind | None:
        """The kind of companions that a folder is named for: `masks`, or `ava_masks` beside `ava`."""
        if (key := str(folder)) not in self._folder_kinds:
            found = _folder_kind(folder.name)
            if found is None and not KOHYA_FOLDERS.fullmatch(folder.name):
                beside = (_companion(_words(rest)) for of, rest in _split(folder) if of in self._folder_names)
                found = next((kind for kind in beside if kind), None)
            self._folder_kinds[key] = found
        return self._folder_kinds[key]

    def _of_folder(self, folder: PurePosixPath) -> FileKind | None:
        """The kind of all pictures of a folder that is named like one of companions; None where they are none."""
        if (key := str(folder)) not in self._folders:
            self._folders[key] = self._kind_of_folder(folder) if self._holds_companions(folder) else None
        return self._folders[key]

    def _holds_companions(self, folder: PurePosixPath) -> bool:
        if not self._stems:
            return False
        if _is_clear(folder.name):
            return True
        inside = self._by_folder.get(str(folder), [])
        with_partner = sum(self._has_partner_elsewhere(path) for path in inside)
        return with_partner >= _SHARE_WITH_PARTNER * len(inside)

    def _has_partner_elsewhere(self, name: PurePosixPath) -> bool:
        """Whether a picture outside of folders of companions has the name, with or without words of companions."""
        if (key := str(name)) not in self._elsewhere:
            self._elsewhere[key] = self._found_elsewhere(name)
        return self._elsewhere[key]

    def _found_elsewhere(self, name: PurePosixPath) -> bool:
        return _key(name.stem) in self._stems or any(
            partner.rpartition("/")[2] in self._stems and _companion(_words(rest)) for partner, rest in _split(name)
        )

    @cached_property
    def _whole_names(self) -> frozenset[str]:
        return frozenset(_key(path) for path in self._pictures)

    @cached_property
    def _stems(self) -> frozenset[str]:
        """Names without suffix of the pictures that lie in no folder of companions."""
        paths = map(PurePosixPath, self._pictures)
        return frozenset(_key(path.stem) for path in paths if not self._is_in_companions(path))

    def _is_in_companions(self, name: PurePosixPath) -> bool:
        return bool(self._companion_folders(name))

    @cached_property
    def _by_folder(self) -> dict[str, list[PurePosixPath]]:
        """The pictures below each folder."""
        found: dict[str, list[PurePosixPath]] = {}
        for path in map(PurePosixPath, self._pictures):
            for folder in list(path.parents)[:-1]:
                found.setdefault(str(folder), []).append(path)
        return found

    @cached_property
    def _folder_names(self) -> frozenset[str]:
        return frozenset(_key(folder) for folder in self._by_folder)

    @cached_property
    def _plain_stems(self) -> frozenset[str]:
        """Of these, those that lie in no folder of versions either."""
        paths = (PurePosixPath(path) for path in self._pictures)
        return frozenset(
            _key(path.stem)
            for path in paths
            if not self._is_in_companions(path) and not any(_is_backup(_words(part)) for part in path.parts[:-1])
        )


def _split(name: PurePosixPath) -> Iterator[tuple[str, str]]:
    """Each (path of a partner, text beside its name) that the name may be made of, the longest partner first."""
    is_known = name.suffix.lower() in (*IMAGE_SUFFIXES, *CAPTION_SUFFIXES)
    text = _key(name.stem if is_known else name.name)
    folder = "" if str(name.parent) == "." else f"{_key(str(name.parent))}/"
    cuts = [match.span() for match in table.SEPARATORS.finditer(text)]
    digits = (match.span() for match in _DIGIT_BEFORE_WORD.finditer(text))
    for start, _ in sorted([*cuts, *digits], reverse=True)[:_MOST_WORDS]:
        if start > 0:
            yield folder + text[:start], text[start:]
    for start, end in cuts[:_MOST_WORDS]:
        if start > 0 and end < len(text) and " " not in text[start:end]:  # `mask_01`, but not `normal day`
            yield folder + text[end:], text[:start]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _key(path: str) -> str:
    return name_key(path).casefold()


def _names(path: str) -> tuple[str, str]:
    """The path with and without suffix, as it is compared."""
    return _key(path), _key(str(PurePosixPath(path).with_suffix("")))


def _words(text: str) -> list[str]:
    return [word for word in table.SEPARATORS.split(_key(text)) if word]


def _is_made_of(words: Sequence[str], *, keys: frozenset[str], details: frozenset[str]) -> bool:
    """Whether all words are of the tables, or numbers, and one of them is a key; `mask2` is `mask`."""
    plain = [word.rstrip("0123456789") for word in words]
    return any(word in keys for word in plain) and all(not word or word in keys or word in details for word in plain)


def _is_earlier(words: Sequence[str]) -> bool:
    return _is_backup(words) or table.EARLIER_STEP.fullmatch(" ".join(words)) is not None


def _is_backup(words: Sequence[str]) -> bool:
    return _is_made_of(words, keys=table.BACKUP_WORDS, details=table.BACKUP_DETAILS)


def _companion(words: Sequence[str]) -> FileKind | None:
    """The kind that words beside a picture's name mean."""
    if _is_made_of(words, keys=table.MASK_WORDS, details=table.COMPANION_DETAILS | table.CONTROL_WORDS):
        return MASK
    if _is_made_of(words, keys=table.CONTROL_WORDS, details=table.COMPANION_DETAILS):
        return CONTROL
    if _is_made_of(words, keys=table.THUMBNAIL_WORDS, details=table.THUMBNAIL_DETAILS):
        return THUMBNAIL
    return THUMBNAIL if words and all(table.SMALLER_COPY.fullmatch(word) for word in words) else None


def _folder_kind(name: str) -> FileKind | None:
    """The kind of companions that a folder of this name is for; none for kohya's `10_mask`."""
    if kind := table.SCRATCH_FOLDERS.get(name.lower()):
        return MASK if kind == "mask" else CONTROL
    return None if KOHYA_FOLDERS.fullmatch(name) else _companion(_words(name))


def _is_clear(folder: str) -> bool:
    """Whether the name alone says that no pictures of a character lie there."""
    words = frozenset(_words(folder))
    is_pair = bool(words & table.CLEAR_PAIRS and words & table.FOLDER_NOUNS)
    return is_pair or bool(words & table.CLEAR_FOLDERS) or folder.lower() in table.SCRATCH_FOLDERS
