"""Staging: changes of a dataset folder that happen as a whole or not at all, whenever the process ends.

A staging folder is hidden in the dataset folder and locked by the process that fills it. Its journal, written when
everything else in it is complete, turns it from something to throw away into something to finish.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Self

from influencerai import file_system
from influencerai.errors import InfluencerAIError

MANIFEST = ".influencerai-uploads.json"
"""{name: SHA-256} of the files that came through the server."""

_LOCK = ".influencerai-uploads.lock"
_PREFIX = ".influencerai-upload-"
_OWNER, _JOURNAL = "owner", "journal.json"
_FILES, _OLD, _INCOMING = "files", "old", "incoming"


class Staging:
    """A hidden folder in which files wait for their place in the dataset folder.

    The dataset folder is made where it is missing, and removed again when nothing comes of it. Leaving the block
    removes whatever was not committed.

    Raises:
        InfluencerAIError: the file system refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"{_PREFIX}{secrets.token_hex(8)}"
        self._owner: IO[bytes] | None = None
        self._held = ExitStack()
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        try:
            with refusals(self._folder):
                self._made = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
                with locked(self._folder, make=True):
                    self._path.mkdir(mode=0o700)
                    self._owner = (self._path / _OWNER).open("xb")
                    owner = self._path / _OWNER
                    self._held.enter_context(file_system.file_lock(self._owner.fileno(), owner))
                    for name in (_FILES, _OLD, _INCOMING):
                        (self._path / name).mkdir()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def incoming(self) -> Path:
        """Folder for files that are not known to be good yet."""
        return self._path / _INCOMING

    def receive(self, name: str, chunks: Iterable[bytes]) -> str:
        """Write a file into `incoming`, to the disk; returns its SHA-256, in hexadecimal."""
        digest = hashlib.sha256()
        with refusals(self._folder), (self.incoming / name).open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            file_system.sync(file.fileno())
        return digest.hexdigest()

    def discard(self, name: str) -> None:
        """Remove the file `name` of `incoming`, where there is one."""
        with contextlib.suppress(OSError):
            (self.incoming / name).unlink()

    def keep(self, name: str, path: str) -> None:
        """Take the file `name` of `incoming` as what goes to `path` in the dataset folder."""
        target = self._path / _FILES / path
        with refusals(self._folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.incoming / name).replace(target)

    def commit(self, place: Mapping[str, str], *, remove: Collection[str] = ()) -> None:
        """Put the files of `place` into the dataset folder, and remove those of `remove`.

        Only inside of `locked`, after `recover_locked`, and when the caller has looked at what is there.

        Args:
            place: {path in the dataset folder: SHA-256} of files that wait here.
            remove: paths in the dataset folder.

        Raises:
            InfluencerAIError: the file system refuses; the folder is as it was.
        """
        known = read_manifest(self._folder)
        manifest = {name: digest for name, digest in {**known, **place}.items() if name not in remove}
        placed = sorted(place)
        with refusals(self._folder):
            if manifest != known:
                _write(self._path / _FILES / MANIFEST, _document(manifest))
                placed.append(MANIFEST)
            for name in (*placed, *remove):
                _link(inside(self._folder, name), self._path / _OLD / name)
            for folder in {(self._path / _FILES / name).parent for name in placed}:
                file_system.sync_folder(folder)
            _write(self._path / _JOURNAL, _document({"place": placed, "remove": sorted(remove)}))
            file_system.sync_folder(self._path)
            try:
                _finish(self._folder, self._path)
            except OSError:
                self._undo(placed, remove)
                raise

    def _undo(self, placed: Collection[str], removed: Collection[str]) -> None:
        """Every step leaves what `_finish` can go on from, should the process end here."""
        for name in placed:
            staged, target = self._path / _FILES / name, self._folder / name
            if not staged.exists():
                target.replace(staged)
        for name in (*placed, *removed):
            old = self._path / _OLD / name
            if old.exists() and not (self._folder / name).exists():
                old.replace(self._folder / name)
        (self._path / _JOURNAL).unlink()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            if not (self._path / _JOURNAL).exists():
                shutil.rmtree(self._path, ignore_errors=True)
            self._held.close()
            if self._owner:
                self._owner.close()
            with locked(self._folder):
                remove_traces(self._folder)
            for path in self._made:
                path.rmdir()


@contextmanager
def locked(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Hold the dataset folder alone, among all processes and threads that change it through here.

    Raises:
        OSError: the folder is missing (with `make` it is made), or may not be written to.
    """
    path = folder / _LOCK
    while True:
        if make:
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


def recover(folder: Path) -> tuple[str, ...]:
    """Finish what killed processes had begun to commit, and throw away what they had not.

    Returns the paths of the files whose commit is finished by this. Uploads that are still going on are left alone.

    Raises:
        InfluencerAIError: the file system refuses.
    """
    with refusals(folder):
        if not any(folder.glob(f"{_PREFIX}*")):
            return ()
        with locked(folder):
            found = recover_locked(folder)
            remove_traces(folder)
            return found


def recover_locked(folder: Path) -> tuple[str, ...]:
    """`recover`, for who holds the lock; raises OSError."""
    found: list[str] = []
    for path in sorted(folder.glob(f"{_PREFIX}*")):
        if path.is_symlink() or _is_owned(path):
            continue
        if (path / _JOURNAL).exists():
            found += _finish(folder, path)
        else:
            shutil.rmtree(path)
    return tuple(found)


def remove_traces(folder: Path) -> None:
    """Remove the lock, which the caller holds, from a folder in which nothing of ours is left."""
    if not (folder / MANIFEST).exists() and not any(folder.glob(f"{_PREFIX}*")):
        (folder / _LOCK).unlink()


def has_traces(folder: Path) -> bool:
    """Whether anything came through the server, or is about to."""
    return (folder / MANIFEST).exists() or any(folder.glob(f"{_PREFIX}*"))


def read_manifest(folder: Path) -> dict[str, str]:
    """{path in the folder: SHA-256} of the files that came through the server.

    Raises:
        InfluencerAIError: somebody else wrote it.
    """
    try:
        document = json.loads((folder / MANIFEST).read_bytes())
        return {str(name): str(digest) for name, digest in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InfluencerAIError(
            f"The list of uploaded files, {MANIFEST} in the dataset folder '{folder.name}', cannot be read.",
            remedy="Restore it, or remove it: its files then count as put there by hand.",
        ) from error


def inside(folder: Path, name: str) -> Path:
    """The path of a file of the dataset folder; its own last part may be a link, which nobody follows.

    Raises:
        InfluencerAIError: a journal or manifest that we did not write names a file elsewhere.
    """
    path = folder / name
    if ".." in PurePosixPath(name).parts or not path.parent.resolve().is_relative_to(folder.resolve()):
        raise InfluencerAIError(f"'{name}' does not lie in the dataset folder '{folder.name}'.")
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; no link is followed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into an InfluencerAIError that names the dataset folder, not where it lies."""
    try:
        yield
    except OSError as error:
        raise InfluencerAIError(
            f"The dataset folder '{folder.name}' cannot be written: {error.strerror or error}.",
            remedy="Free space on its disk, and let the server's user write to it.",
        ) from error


def _finish(folder: Path, staging: Path) -> list[str]:
    """Do what the journal says and is not done yet. Needs no space on the disk but for names."""
    journal = json.loads((staging / _JOURNAL).read_bytes())
    place = {name: inside(folder, name) for name in journal["place"]}
    remove = {name: inside(folder, name) for name in journal["remove"]}
    for name, target in place.items():
        staged = inside(folder, f"{staging.name}/{_FILES}/{name}")
        if staged.exists():
            staged.replace(target)
    for target in remove.values():
        target.unlink(missing_ok=True)
    for parent in {target.parent for target in (*place.values(), *remove.values())}:
        file_system.sync_folder(parent)
    (staging / _JOURNAL).unlink()
    with contextlib.suppress(OSError):  # It is done; `recover` can still clear this up.
        file_system.sync_folder(staging)
        shutil.rmtree(staging)
    return [name for name in (*place, *remove) if name != MANIFEST]


def _is_owned(staging: Path) -> bool:
    """Whether the process that fills a staging folder lives. It locks the owner file before it gives up the folder."""
    try:
        owner = staging / _OWNER
        with owner.open("rb+") as file, file_system.file_lock(file.fileno(), owner):
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


def _link(file: Path, keep: Path) -> None:
    """Keep the bytes of a file that is about to be replaced; a copy where the file system has no links."""
    if not file.exists():
        return
    keep.parent.mkdir(parents=True, exist_ok=True)
    file_system.link_or_copy(file, keep)


def _write(path: Path, data: bytes) -> None:
    """Write a file of a staging folder as a whole, to the disk."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        file_system.sync(file.fileno())
    temporary.replace(path)


def _document(content: object) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()
