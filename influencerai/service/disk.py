"""Disk: bytes of one tenant's files, by what they are.

Links are never followed, and a file with several names counts once.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from influencerai.domain.relative_path import OWN_FOLDER
from influencerai.files.tenant_folders import TenantFolders
from influencerai.settings import Settings
from influencerai.store.usage import TenantFiles

PARTS = ("datasets", "runs", "loras", "other")


def measure(
    folders: TenantFolders, tenant: str, files: TenantFiles, *, check: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Bytes of the tenant's files by part. A folder that is a dataset and an output folder counts as the former.

    `check` is called between folders, and may raise.
    """
    root = folders.root(tenant)
    places = {
        "datasets": [root / path for path in files.datasets],
        "runs": [folders.run_dir(tenant, id) for id in files.job_ids],
        "loras": [root / path for path in files.outputs],
        "other": [],
    }
    if not folders.is_shared:
        places["runs"].append(root / OWN_FOLDER)
        places["other"].append(root)
    seen: set[tuple[int, int]] = set()
    sizes = dict.fromkeys(PARTS, 0)
    for part in PARTS:
        for place in places[part]:
            if _is_plain(root, place):
                for size, inode in _files(place, check):
                    if inode not in seen:
                        seen.add(inode)
                        sizes[part] += size
    return sizes


def folder_bytes(folder: Path, *, check: Callable[[], None] = lambda: None) -> int:
    """Bytes of all files below a folder. `check` is called between folders, and may raise."""
    return sum(size for size, _ in _files(folder, check))


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """Bytes of one disk."""

    free: int
    size: int


def disk_spaces(settings: Settings) -> dict[str, DiskSpace]:
    """The disks under the folders that fill: root and cache; one that cannot be asked is absent."""
    found = {}
    for name, folder in (("root", settings.root), ("cache", settings.cache_dir)):
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            found[name] = DiskSpace(free=usage.free, size=usage.total)
    return found


def _is_plain(root: Path, place: Path) -> bool:
    """Whether no part of the path below the root is a link: what a link leads to is somewhere else's."""
    if place == root:
        return True
    parts = place.relative_to(root).parts
    return not any(root.joinpath(*parts[: count + 1]).is_symlink() for count in range(len(parts)))


def _files(folder: Path, check: Callable[[], None]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Size and inode of each regular file below the folder."""
    waiting = [os.fspath(folder)]
    while waiting:
        check()
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield found.st_size, (found.st_dev, found.st_ino)
