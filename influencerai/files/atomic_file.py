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

    The folder is created if it is missing. `sync` waits until bytes and name are on the disk; without it a
    power cut may lose the file.

    Raises:
        InfluencerAIError: the file system refuses, for example for lack of space or permission.
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
    """A temporary name in the folder of the file `name`; `remove_leftovers` removes files of such names."""
    return str(PurePosixPath(name).with_name(_TEMPORARY.format(secrets.token_hex(8))))


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> int:
    """Delete what interrupted writes left in `folder`; returns how many files.

    Temporary files of running processes look the same: where one may be writing, `older_than` (seconds) spares
    files that were changed recently.
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
    """Open a regular file for reading: opening a pipe or device might block forever.

    Raises:
        OSError: it is not a regular file, or cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return path.open("rb")
