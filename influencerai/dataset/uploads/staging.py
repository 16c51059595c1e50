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
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from influencerai.errors import InfluencerAIError
from influencerai.files import beneath, file_system
from influencerai.files.beneath import shown_name

MANIFEST = ".influencerai-uploads.json"
"""{name: SHA-256} of the files that came through the server."""

_LOCK = ".influencerai-uploads.lock"
_PREFIX = ".influencerai-upload-"
_OWNER, _JOURNAL = "owner", "journal.json"
_FILES, _OLD, _INCOMING = "files", "old", "incoming"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Staging:
    """A hidden folder in which files wait for their place in the dataset folder.

    The dataset folder is made where it is missing, and removed again when nothing comes of it. Leaving the block
    removes whatever was not committed.

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
                    beneath.make_folder(self._folder, self._name, mode=0o700)
                    owner = beneath.open_file(self._folder, self._at(_OWNER), _NEW)
                    self._held.callback(os.close, owner)
                    self._held.enter_context(file_system.file_lock(owner, self._folder / self._at(_OWNER)))
                    for name in (_FILES, _OLD, _INCOMING):
                        beneath.make_folder(self._folder, self._at(name))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def receive(self, name: str, chunks: Iterable[bytes]) -> str:
        """Write the file `name` that is not known to be good yet, to the disk; returns its SHA-256, in hexadecimal."""
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

    def discard(self, name: str) -> None:
        """Remove a received file, where there is one."""
        with contextlib.suppress(OSError):
            beneath.unlink(self._folder, self._at(_INCOMING, name))

    def keep(self, name: str, path: str) -> None:
        """Take a received file as what goes to `path` in the dataset folder."""
        with refusals(self._folder):
            beneath.replace(self._folder, self._at(_INCOMING, name), self._at(_FILES, path))

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
                _write(self._folder, self._at(_FILES, MANIFEST), _document(manifest))
                placed.append(MANIFEST)
            for name in (*placed, *remove):
                if beneath.status(self._folder, name):
                    beneath.link(self._folder, name, self._at(_OLD, name))
            for parent in {str(PurePosixPath(self._at(_FILES, name)).parent) for name in placed}:
                beneath.sync_folder(self._folder, parent)
            journal = _document({"place": placed, "remove": sorted(remove)})
            _write(self._folder, self._at(_JOURNAL), journal)
            beneath.sync_folder(self._folder, self._name)
            try:
                _finish(self._folder, self._name)
            except OSError:
                self._undo(placed, remove)
                raise

    def _undo(self, placed: Collection[str], removed: Collection[str]) -> None:
        """Every step leaves what `_finish` can go on from, should the process end here."""
        for name in placed:
            if not beneath.status(self._folder, self._at(_FILES, name)):
                beneath.replace(self._folder, name, self._at(_FILES, name))
        for name in (*placed, *removed):
            old = self._at(_OLD, name)
            if beneath.status(self._folder, old) and not beneath.status(self._folder, name):
                beneath.replace(self._folder, old, name)
        beneath.unlink(self._folder, self._at(_JOURNAL))

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            if not beneath.status(self._folder, self._at(_JOURNAL)):
                beneath.remove_tree(self._folder, self._name, ignore_errors=True)
            self._held.close()
            with locked(self._folder):
                remove_traces(self._folder)
            for path in self._made:
                path.rmdir()

    def _at(self, *parts: str) -> str:
        return "/".join((self._name, *parts))

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[BinaryIO]:
        descriptor = beneath.open_file(self._folder, self._at(_INCOMING, name), flags)
        with os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "wb") as file:
            yield file


@contextmanager
def locked(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Hold the dataset folder alone, among all processes and threads that change it through here.

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


def recover(folder: Path) -> tuple[str, ...]:
    """Finish what killed processes had begun to commit, and throw away what they had not.

    Returns the paths of the files whose commit is finished by this. Uploads that are still going on are left alone.

    Raises:
        InfluencerAIError: the file system refuses.
    """
    with refusals(folder):
        if not _stagings(folder):
            return ()
        with locked(folder):
            found = recover_locked(folder)
            remove_traces(folder)
            return found


def recover_locked(folder: Path) -> tuple[str, ...]:
    """`recover`, for who holds the lock; raises OSError."""
    found: list[str] = []
    for staging in _stagings(folder):
        if _is_owned(folder, staging):
            continue
        if beneath.status(folder, f"{staging}/{_JOURNAL}"):
            found += _finish(folder, staging)
        else:
            beneath.remove_tree(folder, staging)
    return tuple(found)


def remove_traces(folder: Path) -> None:
    """Remove the lock, which the caller holds, from a folder in which nothing of ours is left."""
    if not has_traces(folder):
        (folder / _LOCK).unlink()


def has_traces(folder: Path) -> bool:
    """Whether anything came through the server, or is about to."""
    return folder.is_dir() and bool(beneath.status(folder, MANIFEST) or _stagings(folder))


def read_manifest(folder: Path) -> dict[str, str]:
    """{path in the folder: SHA-256} of the files that came through the server.

    Raises:
        InfluencerAIError: somebody else wrote it.
    """
    try:
        with os.fdopen(beneath.open_file(folder, MANIFEST), "rb") as file:
            document = json.loads(file.read())
        return {str(name): str(digest) for name, digest in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InfluencerAIError(
            f"The list of uploaded files, {MANIFEST} in the dataset folder '{shown_name(folder)}', cannot be read.",
            remedy="Restore it, or remove it: its files then count as put there by hand.",
        ) from error


def sha256(folder: Path, name: str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; no link is followed."""
    with os.fdopen(beneath.open_file(folder, name), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into an InfluencerAIError that names the dataset folder, not where it lies."""
    try:
        yield
    except OSError as error:
        raise InfluencerAIError(
            f"The dataset folder '{shown_name(folder)}' cannot be written: {error.strerror or error}.",
            remedy="Free space on its disk, and let the server's user write to it.",
        ) from error


def _finish(folder: Path, staging: str) -> list[str]:
    """Do what the journal says and is not done yet. ResourceRequest no space on the disk but for names.

    Raises:
        InfluencerAIError: a journal that we did not write names a file elsewhere.
    """
    with os.fdopen(beneath.open_file(folder, f"{staging}/{_JOURNAL}"), "rb") as file:
        journal = json.loads(file.read())
    place, remove = list(journal["place"]), list(journal["remove"])
    for name in (*place, *remove):
        check_beneath(folder, name)
    for name in place:
        if beneath.status(folder, f"{staging}/{_FILES}/{name}"):
            beneath.replace(folder, f"{staging}/{_FILES}/{name}", name)
    for name in remove:
        beneath.unlink(folder, name)
    for parent in {str(PurePosixPath(name).parent) for name in (*place, *remove)}:
        beneath.sync_folder(folder, parent)
    beneath.unlink(folder, f"{staging}/{_JOURNAL}")
    with contextlib.suppress(OSError):  # It is done; `recover` can still clear this up.
        beneath.sync_folder(folder, staging)
        beneath.remove_tree(folder, staging)
    return [name for name in (*place, *remove) if name != MANIFEST]


def check_beneath(folder: Path, name: str) -> None:
    """Refuse a name of a journal or manifest that leads out of the dataset folder.

    Raises:
        InfluencerAIError: somebody else wrote it.
    """
    try:
        beneath.status(folder, name)
    except OSError as error:
        raise InfluencerAIError(f"'{name}' does not lie in the dataset folder '{shown_name(folder)}'.") from error


def _stagings(folder: Path) -> list[str]:
    """The names of all staging folders of a dataset folder; links are none."""
    found = beneath.entries(folder)
    return [entry.name for entry in found if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False)]


def _is_owned(folder: Path, staging: str) -> bool:
    """Whether the process that fills a staging folder lives. It locks the owner file before it gives up the folder."""
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


def _write(folder: Path, name: str, data: bytes) -> None:
    """Write a file of a staging folder as a whole, to the disk."""
    temporary = f"{name}.new"
    with os.fdopen(beneath.open_file(folder, temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(data)
        file.flush()
        file_system.sync(file.fileno())
    beneath.replace(folder, temporary, name)


def _document(content: object) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()
