"""File system: links, locks, modes and synced names, each with a substitute where a file system lacks it.

exFAT and FAT have neither links nor modes, SMB and some NFS mounts have no locks, and many network mounts cannot
sync folders.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LACKING = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EMLINK, errno.ENOLCK}
)
"""Error numbers of calls that a file system does not offer."""

_TAKEOVER_SECONDS = 3.0
"""filelock replaces a holder's name that was written in part after 2 seconds without a change."""


def link_or_copy(source: Path, target: Path) -> None:
    """Give the bytes of `source` a second name: a hard link, or a copy where the file system has none.

    Raises:
        FileExistsError: `target` is there already.
        OSError: the file system refuses both.
    """
    try:
        os.link(source, target)
    except OSError as failure:
        if failure.errno not in _LACKING:
            raise
        try:
            with source.open("rb") as reading, target.open("xb") as writing:
                shutil.copyfileobj(reading, writing, 2**20)
        except FileExistsError:
            raise
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def create_exclusively(path: Path, data: bytes) -> None:
    """Create `path` with `data`; of several processes that try at once, exactly one succeeds.

    Where there are hard links, no reader finds a part of `data`; elsewhere one may, for the time of one write.

    Raises:
        FileExistsError: the file is there already.
        OSError: the file system refuses.
    """
    complete = path.with_name(f".influencerai-{secrets.token_hex(8)}.tmp")
    try:
        with complete.open("xb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        link_or_copy(complete, path)
    finally:
        with contextlib.suppress(OSError):
            complete.unlink()
    sync_folder(path.parent)


def set_mode(path: Path, mode: int) -> None:
    """Set the permissions, where the file system has any."""
    try:
        path.chmod(mode)
    except OSError as failure:
        if failure.errno not in _LACKING:
            raise


def sync(descriptor: int) -> None:
    """Wait until what was written is on the disk, where the file system can say so."""
    try:
        os.fsync(descriptor)
    except OSError as failure:
        if failure.errno not in _LACKING:
            raise


def sync_folder(folder: Path) -> None:
    """Make a new name in `folder` durable, where the system can: Windows cannot open a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        sync(descriptor)
    except OSError as failure:
        if failure.errno not in (errno.EBADF, errno.EISDIR, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(descriptor: int, path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of the open file `path`, among all processes and threads; it ends with the process.

    On a file system without locks, the file `<path>.held` names the holder instead. It is ignored once that process
    has ended; a holder on another machine cannot be checked, so its lock counts until the file is deleted.

    Raises:
        BlockingIOError: another process or thread holds the lock, and `wait` is false.
        OSError: the file system refuses.
    """
    from filelock import SoftFileLock, Timeout, lock_descriptor

    with contextlib.ExitStack() as held:
        try:
            if not lock_descriptor(descriptor, blocking=wait):
                raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock")
        except OSError as failure:
            if failure.errno not in _LACKING:
                raise
            holder = path.with_name(f"{path.name}.held")
            try:
                held.enter_context(SoftFileLock(holder, timeout=-1 if wait else _TAKEOVER_SECONDS))
            except Timeout as error:
                text = f"a process holds the lock; if it has ended, delete {holder}"
                raise BlockingIOError(errno.EWOULDBLOCK, text) from error
        yield


def type_of(path: Path) -> str | None:
    """The type of the file system that holds `path`, such as ext4 or exfat; None where the system does not list it."""
    try:
        place = path.resolve()
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, RuntimeError):
        return None
    found: tuple[int, str] | None = None
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mounted = Path(fields[1].replace("\\040", " "))
        if place.is_relative_to(mounted) and (found is None or len(mounted.parts) >= found[0]):
            found = len(mounted.parts), fields[2]
    return found[1] if found else None


def refusal(error: OSError, path: Path) -> str:
    """The reason of a failed call in words, with the file system's type where it lacks what was called."""
    reason = error.strerror or str(error)
    kind = type_of(path) if error.errno in _LACKING else None
    return f"{reason} (the file system there is {kind})" if kind else reason
