"""Stored names: where the files of an upload go in the dataset folder, so that pictures and captions stay together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from influencerai.dataset.caption_tables import Pictures
from influencerai.dataset.captions import kohya_folder
from influencerai.dataset.file_kinds import CAPTION, CAPTION_SUFFIXES, PICTURE, TABLE
from influencerai.dataset.formats import IMAGE_SUFFIXES
from influencerai.dataset.spelling_there import Spelling, folded
from influencerai.dataset.uploads.received_files import ReceivedFile
from influencerai.dataset.uploads.received_names import received_path, storable_path


class StoredNames:
    """Places of files. Names that only differ in case or Unicode form from one that is there mean that one.

    Args:
        files: the usable files of the upload.
        present: paths of the files in the dataset folder.
        is_picture: whether one of these is a picture.
    """

    def __init__(
        self, files: Iterable[ReceivedFile], *, present: Sequence[str], is_picture: Callable[[str], bool]
    ) -> None:
        self._spelling = Spelling(present)
        self._is_picture = is_picture
        self._present: dict[str, list[str]] = {}
        for path in present:
            for key in _keys(path):
                self._present.setdefault(key, []).append(path)
        self._stored: dict[str, str] = {}
        """Stored paths of the upload's pictures, by each name that a caption may have."""
        self.by_file: dict[ReceivedFile, str] = {}
        files = list(files)
        for file in (file for file in files if file.kind is PICTURE):
            self.by_file[file] = stored = self._spelling.add(file.storable)
            for key in (*_keys(file.storable), *_keys(_received_form(file))):
                self._stored.setdefault(key, stored)
        for file in (file for file in files if file.kind is TABLE):
            table = PurePosixPath(file.storable)
            self.by_file[file] = self._spelling.add(str(table.with_name(table.name.lower())))
        for file in (file for file in files if file.kind is CAPTION):
            if (place := self._of_caption(file.storable)) is not None:
                self.by_file[file] = place

    def of_caption(self, image: str) -> str | None:
        """Where the caption of an image goes that is named by the upload's or the folder's name for it."""
        path = storable_path(received_path(image))
        stored = self._picture_of(path)
        return None if stored is None else _with_suffix(stored, ".txt")

    def lost_captions(self) -> dict[str, str]:
        """Captions of pictures by stored path, where these came by a name that the picture does not have any more.

        Captions in tables and in the names of kohya's folders; those that have a file of their own are left out.
        """
        pictures = {file: stored for file, stored in self.by_file.items() if file.kind is PICTURE}
        moved = {file: stored for file, stored in pictures.items() if folded(file.path) != folded(stored)}
        if not moved:
            return {}
        by_received = {file.path: file for file in moved}
        received, there = Pictures(list(by_received)), Pictures(list(pictures.values()))
        own = {_stem(stored) for file, stored in self.by_file.items() if file.kind is CAPTION}
        found: dict[str, str] = {}
        for file in moved:
            before, now = kohya_folder(file.path), kohya_folder(moved[file])
            if before and before.caption and (now is None or now.caption != before.caption):
                found[moved[file]] = before.caption
        for table in (file for file in self.by_file if file.kind is TABLE):
            folder = table.path.rpartition("/")[0]
            for name, text in table.rows:
                if text and not there.named(name, folder=self.by_file[table].rpartition("/")[0]):
                    found |= {moved[by_received[path]]: text for path in received.named(name, folder=folder)}
        return {_with_suffix(stored, ".txt"): text for stored, text in found.items() if _stem(stored) not in own}

    def _of_caption(self, path: str) -> str | None:
        suffix = next(suffix for suffix in CAPTION_SUFFIXES if path.lower().endswith(suffix))
        of = path[: -len(suffix)]
        stored = self._picture_of(of)
        if stored is None:
            return None
        is_full_name = PurePosixPath(of).suffix.lower() in IMAGE_SUFFIXES and folded(of) == folded(stored)
        return f"{stored}{suffix}" if is_full_name else _with_suffix(stored, suffix)

    def _picture_of(self, name: str) -> str | None:
        """The stored path of the picture that has this name, with or without its suffix."""
        keys = dict.fromkeys((folded(name), *_keys(name)))
        for key in keys:
            if stored := self._stored.get(key):
                return stored
        present = (path for key in keys for path in self._present.get(key, ()))
        return next((path for path in present if self._is_picture(path)), None)


def _keys(path: str) -> tuple[str, str]:
    """The names that a caption of the picture may have, folded: the picture's with and without its suffix."""
    return folded(path), folded(_stem(path))


def _received_form(file: ReceivedFile) -> str:
    """The picture's name before it got a suffix."""
    return storable_path(file.path)


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _with_suffix(path: str, suffix: str) -> str:
    return f"{_stem(path)}{suffix}"
