"""The files of a dataset folder: what is listed, in which order, and how a file is opened safely."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from influencerai.errors import DatasetError

IGNORED_FOLDERS = frozenset({"__MACOSX", "__pycache__", "@eaDir"})


@dataclass
class Listing:
    """What a folder holds. Paths are relative to it, with forward slashes, sorted by code point."""

    files: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Entries that are not opened, with the reason."""
    warnings: list[str] = field(default_factory=list)


def list_folder(root: Path) -> Listing:
    """Every file under `root`, whatever the file system's order or the locale.

    Hidden entries (`.influencerai`, `.cache`, ...) and the folders of archivers and systems are left out.
    A link to a file of the folder counts as that file; links to folders are not followed.

    Raises:
        DatasetError: `root` itself cannot be listed.
    """
    listing = Listing()
    root = root.resolve()
    folders = [""]
    while folders:  # Folders may be nested deeper than Python calls.
        folders += reversed(_list(root, folders.pop(), listing))
    listing.files.sort()
    return listing


def read_file(path: Path, *, limit: int, inside: Path | None = None) -> bytes:
    """The bytes of a regular file.

    The path is resolved first and opened without following a link, so that what was checked is what is read.

    Raises:
        DatasetError: no regular file, longer than `limit` bytes, unreadable, or outside the folder `inside`.
            The message does not name the file; the caller knows by which name the user knows it.
    """
    data = read_head(path, size=limit + 1, inside=inside)
    if len(data) > limit:
        raise DatasetError(f"The file is larger than {limit:,} bytes.")
    return data


def read_head(path: Path, *, size: int = 16, inside: Path | None = None) -> bytes:
    """The first `size` bytes of a regular file; raises as `read_file`."""
    try:
        target = path.resolve(strict=True)
        if inside is not None and not target.is_relative_to(inside.resolve()):
            raise DatasetError("The file is a link that leaves the folder.", remedy="Copy the file into the folder.")
        # Non-blocking, since opening a named pipe would wait for a writer for ever.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(target, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DatasetError("This is no regular file.")
            return file.read(size)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DatasetError(f"The file cannot be read: {reason or error}.") from error


def _list(root: Path, prefix: str, listing: Listing) -> list[str]:
    """Adds the files of one folder to the listing, and returns its folders."""
    try:
        with os.scandir(root / prefix) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = f"The folder cannot be listed: {error.strerror}."
        if not prefix:
            raise DatasetError(reason) from error
        listing.refused[prefix.removesuffix("/")] = reason
        return []
    folders = []
    for entry in found:
        path = prefix + entry.name
        if entry.name.startswith(".") or entry.name in IGNORED_FOLDERS:
            continue
        if not _is_unicode(entry.name):
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            listing.refused[shown] = "The name is not valid UTF-8. Rename the file."
        elif entry.is_symlink():
            _list_link(root, path, listing)
        elif entry.is_dir(follow_symlinks=False):
            folders.append(f"{path}/")
        else:
            listing.files.append(path)
    return folders


def _list_link(root: Path, path: str, listing: Listing) -> None:
    try:
        target = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):
        listing.refused[path] = "The file is a link to nothing."
        return
    if not target.is_relative_to(root):
        listing.refused[path] = "The file is a link that leaves the folder. Copy what it names into the folder."
    elif target.is_dir():
        listing.warnings.append(f"{path} is a link to a folder and is not followed.")
    else:
        listing.files.append(path)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
