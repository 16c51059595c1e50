"""Staging: a hidden folder in which files wait until all of them are checked; then each is renamed into its place.

A crash between two renames leaves some files in place, each of them whole. The same upload again finds those
unchanged and places the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from influencerai.dataset.uploads.manifest import MANIFEST, check_beneath, manifest_bytes, read_manifest, refusals
from influencerai.files import beneath, file_system

_LOCK = ".influencerai-uploads.lock"
_PREFIX = ".influencerai-upload-"
_OWNER = "owner"
_MANIFEST = "manifest"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Staging:
    """A hidden folder of the dataset folder, locked by the process that fills it.

    Entering makes the dataset folder where it is missing, and removes what interrupted uploads left. Leaving removes
    the files that were not placed, and the dataset folder if it was made and is still empty.

    Raises:
        InfluencerAIError: the file system refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{_PREFIX}{secrets.token_hex(8)}"
        self._held = ExitStack()
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        try:
            with refusals(self._folder):
                self._made = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
                with locked(self._folder, make=True):
                    clear_leftovers(self._folder)
                    beneath.make_folder(self._folder, self._name, mode=0o700)
                    owner = beneath.open_file(self._folder, self._at(_OWNER), _NEW)
                    self._held.callback(os.close, owner)
                    self._held.enter_context(file_system.file_lock(owner, self._folder / self._at(_OWNER)))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def receive(self, name: str, chunks: Iterable[bytes]) -> str:
        """Write the file `name` to the disk; returns its SHA-256, in hexadecimal."""
        digest = hashlib.sha256()
        with refusals(self._folder), self._opened(name, _NEW) as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            file_system.sync(file.fileno())
        return digest.hexdigest()

    def read(self, name: str, *, limit: int) -> bytes:
        """At most the first `limit` bytes of a received file."""
        with refusals(self._folder), self._opened(name, os.O_RDONLY) as file:
            return file.read(limit)

    def place(self, files: Mapping[str, tuple[str, str]]) -> None:
        """Rename received files into the dataset folder, whose lock the caller holds.

        The manifest is written first, so that no file of an interrupted upload counts as put there by hand.

        Args:
            files: {path in the dataset folder: (name of the received file, SHA-256)}.

        Raises:
            InfluencerAIError: the file system refuses; files that were renamed before stay in place.
        """
        known = read_manifest(self._folder)
        after = {path: digest for path, (_, digest) in files.items()}
        during = {path: f"{known[path]} {digest}" if path in known else digest for path, digest in after.items()}
        with refusals(self._folder):
            self._write_manifest({**known, **during})
            for path in sorted(files):
                beneath.replace(self._folder, self._at(files[path][0]), path)
            for parent in {str(PurePosixPath(path).parent) for path in files}:
                beneath.sync_folder(self._folder, parent)
            if during != after:
                self._write_manifest({**known, **after})

    def remove(self, path: str) -> None:
        """Remove a file of the dataset folder, whose lock the caller holds.

        Raises:
            InfluencerAIError: the file system refuses.
        """
        manifest = read_manifest(self._folder)
        with refusals(self._folder):
            beneath.unlink(self._folder, path)
            beneath.sync_folder(self._folder, str(PurePosixPath(path).parent))
            if manifest.pop(path, None):
                self._write_manifest(manifest)

    def _write_manifest(self, manifest: Mapping[str, str]) -> None:
        self.receive(_MANIFEST, [manifest_bytes(manifest)])
        beneath.replace(self._folder, self._at(_MANIFEST), MANIFEST)
        beneath.sync_folder(self._folder)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            beneath.remove_tree(self._folder, self._name, ignore_errors=True)
            self._held.close()
            with locked(self._folder):
                remove_traces(self._folder)
            for path in self._made:
                path.rmdir()

    def _at(self, name: str) -> str:
        return f"{self._name}/{name}"

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[BinaryIO]:
        descriptor = beneath.open_file(self._folder, self._at(name), flags)
        with os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "wb") as file:
            yield file


@contextmanager
def locked(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Hold the lock of the dataset folder, which every change through the server takes.

    Raises:
        OSError: the folder is missing (with `make` it is made), or may not be written to.
    """
    path = folder / _LOCK
    while True:
        if make and not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            if make:
                continue
            raise
        try:
            with file_system.file_lock(descriptor, path, wait=True):
                if _is_open_at(descriptor, path):  # Else its last holder has removed it.
                    yield
                    return
        finally:
            os.close(descriptor)


def clear_leftovers(folder: Path) -> None:
    """Remove the staging folders of processes that have ended; the caller holds the lock.

    Earlier versions journaled a commit: where a journal lies in a staging folder, the commit is completed.

    Raises:
        OSError: the file system refuses.
        InfluencerAIError: a journal names a file outside the folder.
    """
    for staging in _stagings(folder):
        if not _is_owned(folder, staging):
            _complete_journal(folder, staging)
            beneath.remove_tree(folder, staging)


def remove_traces(folder: Path) -> None:
    """Remove the lock, which the caller holds, from a folder without a manifest and staging folders."""
    if not has_traces(folder):
        (folder / _LOCK).unlink()


def has_traces(folder: Path) -> bool:
    """Whether files were uploaded to the folder, or an upload is in progress or was interrupted."""
    return folder.is_dir() and bool(beneath.status(folder, MANIFEST) or _stagings(folder))


def _complete_journal(folder: Path, staging: str) -> None:
    try:
        with os.fdopen(beneath.open_file(folder, f"{staging}/journal.json"), "rb") as file:
            journal = json.loads(file.read())
        place, remove = list(journal["place"]), list(journal["remove"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return
    for name in (*place, *remove):
        check_beneath(folder, name)
    for name in place:
        if beneath.status(folder, f"{staging}/files/{name}"):
            beneath.replace(folder, f"{staging}/files/{name}", name)
    for name in remove:
        beneath.unlink(folder, name)
    for parent in {str(PurePosixPath(name).parent) for name in (*place, *remove)}:
        beneath.sync_folder(folder, parent)


def _stagings(folder: Path) -> list[str]:
    """The names of the staging folders of a dataset folder, without links."""
    found = beneath.entries(folder)
    return [entry.name for entry in found if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False)]


def _is_owned(folder: Path, staging: str) -> bool:
    """Whether the process that fills a staging folder is alive. It locks the owner file while it holds `locked`."""
    try:
        owner = f"{staging}/{_OWNER}"
        with (
            os.fdopen(beneath.open_file(folder, owner, os.O_RDWR), "rb+") as file,
            file_system.file_lock(file.fileno(), folder / owner),
        ):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
