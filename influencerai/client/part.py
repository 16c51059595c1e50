"""Part: the file that a download grows in, and that no other download writes to meanwhile."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def claimed_part(folder: Path, sha256: str) -> Iterator[Path]:
    """A file in the folder for the bytes that have this hash, which is the caller's alone until the end of the block.

    Bytes that are left in it stay for a later call, which continues after them. Where another download is using it,
    or nothing can be locked (as on Windows), it is another file, which goes with the block.

    Raises:
        OSError: the folder cannot be written to.
    """
    part = folder / f".influencerai-{sha256}.part"
    lock = _locked(part)
    if lock is None:
        part = part.with_name(f".influencerai-{sha256}-{uuid4().hex}.part")
        part.touch(exist_ok=False)
    try:
        yield part
    finally:
        if lock is None:
            part.unlink(missing_ok=True)
        else:
            if os.fstat(lock).st_size == 0 and _is_open_at(lock, part):
                part.unlink()
            os.close(lock)


def _locked(path: Path) -> int | None:
    """A descriptor of the file, which is made, with a lock on it; None where that is not to be had."""
    if sys.platform == "win32":
        return None
    import fcntl

    while True:
        if path.is_symlink():
            path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        found = os.fstat(descriptor)
        if _is_open_at(descriptor, path):
            if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
                return descriptor
            path.unlink(missing_ok=True)  # its bytes have another name too, under which they are not to change
        os.close(descriptor)


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
