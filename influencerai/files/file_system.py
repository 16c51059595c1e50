"""File system: links, locks, modes and synced names, each with a second way where a file system lacks it.

exFAT and FAT have neither links nor modes, SMB and some NFS mounts have no locks, and many network mounts cannot
sync folders.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LACKING = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EMLINK, errno.ENOLCK}
)
"""What a call fails with where the file system does not offer it."""
_HELD = frozenset({errno.EWOULDBLOCK, errno.EACCES})
"""What `flock` fails with where another descriptor has the lock; some SMB mounts answer EACCES."""
_HOLDER_SUFFIX = ".held"
_POLL_SECONDS = 0.05
_WRITING_SECONDS = 10.0
"""A holder's name that is still a part after so long was cut off by the end of its process."""


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
    """Hold the open file `path` alone, among all processes and threads; the lock goes with the process.

    Where the file system has no locks, a file beside `path` names the holder, and one whose process has ended is
    passed over. A holder on another machine cannot be examined: its lock counts until that file is deleted.

    Raises:
        BlockingIOError: another process or thread holds it, and `wait` is false.
        OSError: the file system refuses.
    """
    if _has_flock(descriptor, wait=wait):
        yield
        return
    holder = path.with_name(f"{path.name}{_HOLDER_SUFFIX}")
    own = _take(holder, wait=wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if holder.read_bytes() == own:
                holder.unlink()


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


def _has_flock(descriptor: int, *, wait: bool) -> bool:
    """Lock the descriptor; False where the system or the file system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        if failure.errno in _HELD:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock") from failure
        if failure.errno in _LACKING:
            return False
        raise
    return True


def _take(holder: Path, *, wait: bool) -> bytes:
    """Create the file that names this process as the holder; returns its content."""
    own = json.dumps({**_identity(os.getpid()), "nonce": secrets.token_hex(8)}).encode()
    while True:
        try:
            create_exclusively(holder, own)
            return own
        except FileExistsError:
            pass
        if _remove_ended(holder):
            continue
        if not wait:
            raise BlockingIOError(errno.EWOULDBLOCK, f"a process holds the lock; if it has ended, delete {holder}")
        time.sleep(_POLL_SECONDS)


def _remove_ended(holder: Path) -> bool:
    """Remove the name of a holder whose process has ended; whether the lock may be free now."""
    try:
        content = holder.read_bytes()
    except FileNotFoundError:
        return True
    try:
        document = json.loads(content)
        if _is_alive(document):
            return False
    except (ValueError, KeyError, TypeError):
        if time.time() - holder.stat().st_mtime < _WRITING_SECONDS:
            return False
    grave = holder.with_name(f".influencerai-{secrets.token_hex(8)}.tmp")
    try:
        holder.rename(grave)
    except FileNotFoundError:
        return True
    if grave.read_bytes() != content:  # another process has taken the lock between reading and renaming
        with contextlib.suppress(FileExistsError):
            link_or_copy(grave, holder)
    grave.unlink()
    return True


def _identity(process: int) -> dict[str, Any]:
    """Where a process runs and which one it is, so that a later one of the same number is told from it."""
    return {"host": socket.gethostname(), "system": _system(), "process": process, "started": _started(process)}


def _is_alive(document: dict[str, Any]) -> bool:
    """Whether the process still runs; of one on another machine, or in another container, nothing is known."""
    process = int(document["process"])
    if (document["host"], document["system"]) != (socket.gethostname(), _system()):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return bool(document["started"] == _started(process))


def _system() -> str:
    """This boot of the machine and the process namespace, in which process numbers mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process started, in clock ticks since boot; empty where the system does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
