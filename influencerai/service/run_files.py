"""Run files: folders of runs, copies of pictures and cached tensors, and which of them nobody has touched for long."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from influencerai.domain.relative_path import OWN_FOLDER
from influencerai.files import beneath
from influencerai.settings import Settings
from influencerai.worker.cleanup import ASIDE, discard_run, set_aside

_RUNS, _BLOBS = f"{OWN_FOLDER}/runs", f"{OWN_FOLDER}/blobs"
_JOB = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_SPEC, _RESULT, _LOCK, _DATASET = "spec.json", "result.json", "lock", "dataset"


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The folder of one run."""

    root: Path
    """The tenant's, or the one that tenants share."""
    name: str
    tenant: str | None
    """By its place; None in a root that tenants share."""
    links: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)
    """Shared by all runs of a look: links that those before would have removed, by inode."""

    @property
    def path(self) -> Path:
        """The folder's ordinary path, for looking and for messages."""
        return self.root / _RUNS / self.name

    @property
    def job_id(self) -> str | None:
        """The job that it belongs to; None for a training of the command line or of a notebook."""
        return self.name if _JOB.fullmatch(self.name) else None

    @property
    def is_finished(self) -> bool:
        """Whether a run without a job has its result."""
        return (self.path / _RESULT).exists()

    @property
    def is_local(self) -> bool:
        """Whether it is the run of a training without a server."""
        return self.job_id is None and (self.path / _SPEC).exists()

    @property
    def touched(self) -> float:
        """Unix time of the last change, as far as the folder and what lies directly in it tell."""
        times = [0.0]
        with suppress(OSError):
            times.append(self.path.stat().st_mtime)
            times += [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(self.path)]
        return max(times)

    def resumable_bytes(self) -> int:
        """Bytes that `discard` frees: states, and pictures that no other run uses."""
        return sum(_sizes(self.path.glob("state-*.safetensors"))) + self._aside_bytes() + self._picture_bytes()

    def all_bytes(self) -> int:
        """Bytes that `remove` frees."""
        others = (
            file
            for file in self.path.rglob("*")
            if (top := file.relative_to(self.path).parts[0]) != _DATASET and not top.startswith(ASIDE)
        )
        return sum(_sizes(others)) + self._aside_bytes() + self._picture_bytes()

    def set_aside(self) -> None:
        """Take states and pictures out of the run at once, without removing them yet, which `discard` does.

        Raises:
            OSError: the file system refuses.
        """
        set_aside(self.root, self.name)

    def discard(self) -> None:
        """Remove states and pictures, which only a resumed training needs; the log stays.

        Raises:
            OSError: the file system refuses.
        """
        discard_run(self.root, self.name)

    def remove(self) -> None:
        """Remove the whole folder, and pictures that no other run uses.

        Raises:
            OSError: the file system refuses.
        """
        self.discard()
        beneath.remove_tree(self.root, f"{_RUNS}/{self.name}")

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the run of a training without a server, as its trainer does; yields whether nobody else does."""
        with (self.path / _LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def _aside_bytes(self) -> int:
        return sum(_sizes(self.path.glob(f"{ASIDE}*/state-*.safetensors")))

    def _picture_bytes(self) -> int:
        total = 0
        folders = (self.path / _DATASET, *self.path.glob(f"{ASIDE}*/{_DATASET}"))
        for file in (file for folder in folders for file in folder.rglob("*")):
            with suppress(OSError):
                found = file.lstat()
                if not file.is_file() or file.is_symlink():
                    continue
                inode = (found.st_dev, found.st_ino)
                self.links[inode] = self.links.get(inode, 0) + 1
                if found.st_nlink - self.links[inode] <= 1:  # the copy that all runs share goes with the last one
                    total += found.st_size
        return total


def runs_of(settings: Settings, *, tenant: str | None = None) -> list[RunFiles]:
    """The folders of runs in the root, and in those of all tenants or of one."""
    links: dict[tuple[int, int], int] = {}
    return [
        RunFiles(root=root, name=path.name, tenant=owner, links=links)
        for owner, root in roots_of(settings, tenant=tenant)
        for path in sorted((root / _RUNS).glob("*"))
        if path.is_dir() and not path.is_symlink()
    ]


def roots_of(settings: Settings, *, tenant: str | None = None) -> list[tuple[str | None, Path]]:
    """The root, and those of all tenants, or of one."""
    tenants = settings.root / "tenants"
    named = [tenants / tenant] if tenant is not None else sorted(tenants.glob("*"))
    own = [(path.name, path) for path in named if path.is_dir() and not path.is_symlink()]
    return [(None, settings.root), *own]


def unused_blobs(root: Path, *, before: float) -> Iterator[str]:
    """Names below `root` of copies of pictures that no run links and nobody has written since `before`."""
    for path in (root / _BLOBS).glob("*/*"):
        with suppress(OSError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_mtime < before:
                yield path.relative_to(root).as_posix()


def unused_tensors(cache: Path, *, before: float) -> Iterator[str]:
    """Names below `cache` of tensors that nobody has read since `before`: reading one sets its time."""
    for path in cache.glob("*/*.tensors"):
        with suppress(OSError):
            if path.lstat().st_mtime < before:
                yield path.relative_to(cache).as_posix()


def _sizes(files: Iterable[Path]) -> Iterator[int]:
    """Bytes of each regular file that is still there."""
    for file in files:
        with suppress(OSError):
            found = file.lstat()
            if stat.S_ISREG(found.st_mode):
                yield found.st_size
