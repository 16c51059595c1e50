"""Beneath: files of a folder, opened below its descriptor, so that no link leads out of it.

Somebody who may write to the folder can exchange a subfolder for a link between a check and the use of what was
checked. Here every part of a name is opened below the part before, and none may be a link.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from influencerai.files import file_system

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Non-blocking, since opening a named pipe would wait for a writer for ever."""
_DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def pinned(root: Path, name: str, *, make: bool = False) -> Iterator[Path]:
    """A path of the folder `name` below `root` that names the same folder until the end of the block.

    On Linux it does so whoever renames or exchanges folders meanwhile; elsewhere it is the ordinary path.

    Args:
        root: may be a link, and is trusted.
        name: relative, with forward slashes; no part may be a link.
        make: make the folder where it is missing, and remove it again if it is empty at the end.

    Raises:
        OSError: there is no such folder, or a part of the name is a link or a file.
    """
    made: list[str] = []
    descriptor = _open_folder(root, PurePosixPath(name).parts, make=made if make else None)
    try:
        yield _DESCRIPTORS / str(descriptor) if sys.platform == "linux" else root / name
    finally:
        os.close(descriptor)
        for path in reversed(made):
            with suppress(OSError):  # It is not empty.
                remove_folder(root, path)


def path_of(descriptor: int) -> Path:
    """A path that opens the file of a descriptor again, whatever has its name by now; while the descriptor is open."""
    return (_DESCRIPTORS if sys.platform == "linux" else Path("/dev/fd")) / str(descriptor)


def shown_path(folder: Path) -> Path:
    """The ordinary path of a folder, for messages."""
    if folder.parent == _DESCRIPTORS:
        with suppress(OSError):
            return folder.readlink()
    return folder


def shown_name(folder: Path) -> str:
    """The last part of the folder's name, for messages."""
    return shown_path(folder).name


@contextmanager
def holding(folder: Path, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The descriptor of the folder that holds the file `name` of `folder`, and the last part of the name.

    Raises:
        OSError: there is no such folder, or a part of the name before the last is a link or a file.
    """
    *parts, last = PurePosixPath(name).parts or ("/",)
    if last in ("..", "/"):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    descriptor = _open_folder(folder, parts, make=[] if make else None)
    try:
        yield descriptor, last
    finally:
        os.close(descriptor)


def open_file(folder: Path, name: str, flags: int = os.O_RDONLY, *, mode: int = 0o666) -> int:
    """A descriptor of a regular file, which blocks as usual.

    Raises:
        OSError: there is no such file, or a part of the name is a link; EINVAL where it is not a regular file.
    """
    with holding(folder, name) as (parent, last):
        descriptor = os.open(last, flags | _FILE_FLAGS, mode, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "This is not a regular file", name)
    os.set_blocking(descriptor, True)
    return descriptor


def status(folder: Path, name: str) -> os.stat_result | None:
    """The status of the entry of this name, without following links; None where there is none."""
    try:
        with holding(folder, name) as (parent, last):
            return os.stat(last, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def entries(folder: Path, name: str = "") -> list[os.DirEntry[str]]:
    """The entries of the folder `name` of `folder`, sorted. Use only their names and types.

    Raises:
        OSError: there is no such folder, or a part of the name is a link.
    """
    descriptor = _open_folder(folder, PurePosixPath(name).parts)
    try:
        with os.scandir(descriptor) as found:
            listed = sorted(found, key=lambda entry: entry.name)
            for entry in listed:  # File systems that do not tell the type are asked while the folder is open.
                with suppress(OSError):
                    entry.is_dir(follow_symlinks=False)
            return listed
    finally:
        os.close(descriptor)


def make_folder(folder: Path, name: str, *, mode: int = 0o777) -> None:
    with holding(folder, name) as (parent, last):
        os.mkdir(last, mode, dir_fd=parent)


def remove_folder(folder: Path, name: str) -> None:
    with holding(folder, name) as (parent, last):
        os.rmdir(last, dir_fd=parent)


def remove_tree(folder: Path, name: str, *, ignore_errors: bool = False) -> None:
    with holding(folder, name) as (parent, last):
        shutil.rmtree(last, ignore_errors=ignore_errors, dir_fd=parent)


def unlink(folder: Path, name: str) -> None:
    """Remove a file, where there is one."""
    with suppress(FileNotFoundError), holding(folder, name) as (parent, last):
        os.unlink(last, dir_fd=parent)


def replace(folder: Path, name: str, target: str) -> None:
    """Give a file another name in the folder; the folders of that are made."""
    with holding(folder, name) as (parent, last), holding(folder, target, make=True) as (other, new):
        os.replace(last, new, src_dir_fd=parent, dst_dir_fd=other)


def link(folder: Path, name: str, target: str) -> None:
    """Give a file a second name; its bytes are copied where the file system has no links."""
    with holding(folder, name) as (parent, last), holding(folder, target, make=True) as (other, new):
        try:
            os.link(last, new, src_dir_fd=parent, dst_dir_fd=other, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError:
            with os.fdopen(open_file(folder, name), "rb") as source:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with os.fdopen(os.open(new, flags | _FILE_FLAGS, 0o666, dir_fd=other), "wb") as copy:
                    shutil.copyfileobj(source, copy)


def sync_folder(folder: Path, name: str = "") -> None:
    """Write what a folder holds to the disk, where the file system can."""
    descriptor = _open_folder(folder, PurePosixPath(name).parts)
    try:
        file_system.sync(descriptor)
    finally:
        os.close(descriptor)


def _open_folder(root: Path, parts: Iterable[str], *, make: list[str] | None = None) -> int:
    """A descriptor of a folder; with `make`, missing ones are made and their names are added to it."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    done: list[str] = []
    for part in parts:
        if part in ("..", "/"):
            os.close(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), part)
        done.append(part)
        try:
            child = _child(descriptor, part, make=make, name="/".join(done))
        finally:
            os.close(descriptor)
        descriptor = child
    return descriptor


def _child(parent: int, part: str, *, make: list[str] | None, name: str) -> int:
    try:
        return os.open(part, _FOLDER_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        if make is None:
            raise
    with suppress(FileExistsError):
        os.mkdir(part, dir_fd=parent)
        make.append(name)
    return os.open(part, _FOLDER_FLAGS, dir_fd=parent)
