"""Atomic files: written whole or not at all, whenever the process ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from influencerai.errors import InfluencerAIError
from influencerai.files import file_system

_TEMPORARY = ".influencerai-{}.tmp"


def write_atomic(path: Path, data: bytes | Iterable[bytes | memoryview], *, sync: bool = True) -> None:
    """Write `data` to `path` so that a reader, or a crash, finds the old file or the new one, never a part.

    An iterable's parts are written one after the other.

    The folder is made where it is missing. `sync` waits until bytes and name are on the disk; without it a
    power cut may lose the file.

    Raises:
        InfluencerAIError: the file system refuses, such as for want of space or permission.
    """
    temporary = path.parent / _TEMPORARY.format(secrets.token_hex(8))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            for part in (data,) if isinstance(data, bytes) else data:
                file.write(part)
            if sync:
                file.flush()
                file_system.sync(file.fileno())
        temporary.replace(path)
        if sync:
            file_system.sync_folder(path.parent)
    except OSError as error:
        raise InfluencerAIError(
            f"{path} cannot be written: {file_system.refusal(error, path.parent)}.",
            remedy="Free space on that disk, or choose a folder that you may write to.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_beside(name: str) -> str:
    """A name in the folder of the file `name`; what has it is removed by `remove_leftovers`."""
    return str(PurePosixPath(name).with_name(_TEMPORARY.format(secrets.token_hex(8))))


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> int:
    """Delete what interrupted writes left in `folder`; returns how many files.

    Another process's temporary file looks the same: where one may be writing, spare with `older_than` (seconds)
    what was changed lately.
    """
    removed = 0
    for path in folder.glob(_TEMPORARY.format("*")):
        with contextlib.suppress(FileNotFoundError):
            if not older_than or path.stat().st_mtime < time.time() - older_than:
                path.unlink()
                removed += 1
    return removed


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, but no pipe or device, which might never answer.

    Raises:
        OSError: it is no regular file, or cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.open("rb")
