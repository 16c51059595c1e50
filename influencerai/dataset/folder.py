"""The files of a dataset folder: which are listed, in which order, and how a file is opened safely."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from influencerai.dataset.program_files import SYSTEM_FOLDER_SUFFIXES, SYSTEM_FOLDERS
from influencerai.domain.output_path import RUN_MARKER
from influencerai.domain.relative_path import OWN_FOLDER
from influencerai.errors import DatasetError
from influencerai.files import beneath


@dataclass
class Listing:
    """The entries of a folder. Paths are relative to it, with forward slashes, sorted by code point."""

    files: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Entries that are not opened, with the reason."""
    warnings: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """Hidden entries and the folders of archivers and systems, without those of this program."""
    output_folders: set[str] = field(default_factory=set)
    """Folders that carry the marker of a run, "" for the listed one."""
    followed: list[str] = field(default_factory=list)
    """Links that leave the folder and were followed."""


def list_folder(root: Path, *, follow_links: bool = False) -> Listing:
    """Every file under `root`, whatever the file system's order or the locale.

    Hidden entries (`.influencerai`, `.cache`, ...) and the folders of archivers and systems are not among the files.
    A link to a file of the folder counts as that file; a link to a folder of the folder is not followed.

    Args:
        root: the dataset folder.
        follow_links: whether links may leave the folder. Only for a path that the user of this machine typed.

    Raises:
        DatasetError: `root` itself cannot be listed.
    """
    walk = _Walk(root, follow_links=follow_links)
    walk.run()
    listing = walk.listing
    listing.files.sort()
    listing.followed.sort()
    return listing


def read_file(path: Path, *, limit: int, inside: Path | None = None) -> bytes:
    """The bytes of a regular file.

    With `inside` each part of the path is opened below the part before, so that what was checked is what is read.

    Raises:
        DatasetError: not a regular file, longer than `limit` bytes, unreadable, or outside the folder `inside`.
            The message does not name the file; the caller knows by which name the user knows it.
    """
    data = read_head(path, size=limit + 1, inside=inside)
    if len(data) > limit:
        raise DatasetError(f"The file is larger than {limit:,} bytes.")
    return data


def read_head(path: Path, *, size: int = 16, inside: Path | None = None) -> bytes:
    """The first `size` bytes of a regular file; raises as `read_file`."""
    try:
        with os.fdopen(_open(path, inside=inside), "rb") as file:
            return file.read(size)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        if isinstance(error, OSError) and error.errno == errno.EINVAL:
            raise DatasetError("This is not a regular file.") from error
        raise DatasetError(f"The file cannot be read: {reason or error}.") from error


def _open(path: Path, *, inside: Path | None) -> int:
    """A descriptor of a regular file; raises OSError, or DatasetError for a link that leaves `inside`."""
    if inside is None:
        target = path.resolve(strict=True)
        return beneath.open_file(target.parent, target.name)
    if path.is_relative_to(inside):
        try:
            return beneath.open_file(inside, path.relative_to(inside).as_posix())
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EINVAL):
                raise
    # A part of the path is a link. Where that leads is opened below the folder again, without following any link.
    target, root = path.resolve(strict=True), inside.resolve()
    if not target.is_relative_to(root):
        raise DatasetError("The file is a link that leaves the folder.", remedy="Copy the file into the folder.")
    return beneath.open_file(inside, target.relative_to(root).as_posix())


class _Walk:
    """One walk through a folder."""

    def __init__(self, root: Path, *, follow_links: bool) -> None:
        self.root = root.resolve()
        self.follow_links = follow_links
        self.listing = Listing()
        self._pinned = root
        self._real_folders = {self.root}
        """Folders outside that were entered through a link, and `root`: none is entered twice."""

    def run(self) -> None:
        folders = [""]
        while folders:  # Folders may be nested deeper than Python calls.
            folders += reversed(list(self._enter(folders.pop())))

    def _enter(self, prefix: str) -> Iterator[str]:
        """Add the files of one folder to the listing, and yield its folders."""
        try:
            found = self._entries(prefix)
        except OSError as error:
            reason = f"The folder cannot be listed: {error.strerror}."
            if not prefix:
                raise DatasetError(reason) from error
            self.listing.refused[prefix.removesuffix("/")] = reason
            return
        for entry in found:
            path = prefix + entry.name
            if _is_passed_over(entry.name):
                self._pass_over(prefix, entry)
            elif not _is_unicode(entry.name):
                shown = os.fsencode(path).decode("utf-8", "backslashreplace")
                self.listing.refused[shown] = "The name is not valid UTF-8. Rename the file."
            elif entry.is_symlink():
                yield from self._link(path)
            elif entry.is_dir(follow_symlinks=False):
                yield f"{path}/"
            else:
                self.listing.files.append(path)

    def _entries(self, prefix: str) -> list[os.DirEntry[str]]:
        if not self.follow_links:
            return beneath.entries(self._pinned, prefix)
        with os.scandir(self.root / prefix) as found:
            return sorted(found, key=lambda entry: entry.name)

    def _pass_over(self, prefix: str, entry: os.DirEntry[str]) -> None:
        if entry.name == RUN_MARKER:
            self.listing.output_folders.add(prefix.removesuffix("/"))
        if not entry.name.startswith(OWN_FOLDER) and _is_unicode(entry.name):
            self.listing.passed_over.append(prefix + entry.name)

    def _link(self, path: str) -> Iterator[str]:
        """Add what a link names, and yield it where it is a folder to be entered."""
        listing = self.listing
        try:
            target = (self.root / path).resolve(strict=True)
        except (OSError, RuntimeError):
            listing.refused[path] = "The file is a link to nothing."
            return
        is_folder = target.is_dir()
        leaves = not target.is_relative_to(self.root)
        if leaves and not self.follow_links:
            listing.refused[path] = (
                "The folder is a link that leaves the dataset. Copy its files into the dataset."
                if is_folder
                else "The file is a link that leaves the folder. Copy what it names into the folder."
            )
        elif not is_folder:
            listing.files.append(path)
            listing.followed += [path] if leaves else []
        elif not leaves or self.root.is_relative_to(target) or target in self._real_folders:
            listing.warnings.append(f"{path} is a link to a folder and is not followed.")
        else:
            self._real_folders.add(target)
            listing.followed.append(path)
            yield f"{path}/"


def _is_passed_over(name: str) -> bool:
    """Whether an entry is hidden, or a folder of archivers, systems or catalogues."""
    lower = name.lower()
    return lower.startswith(".") or lower in SYSTEM_FOLDERS or lower.endswith(SYSTEM_FOLDER_SUFFIXES)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
