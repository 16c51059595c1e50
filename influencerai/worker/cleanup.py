"""Cleanup of runs: states and images of completed jobs that killed attempts did not remove."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from influencerai.domain.relative_path import OWN_FOLDER
from influencerai.files.tenant_folders import TenantFolders
from influencerai.settings import Settings
from influencerai.store import Store

_PAUSE_SECONDS = 10.0
_FIRST_SECONDS = 24 * 3600.0
"""How far back the first look goes: to what was completed before this process began."""
_AGAIN_SECONDS = 60.0
"""For so long it is tried again where the file system refuses."""
ASIDE = ".discarded-"
"""How the names of folders begin into which a run's states and pictures were moved to be removed."""
_log = logging.getLogger(__name__)


class RunCleanup:
    """Removes what is left of completed jobs of all tenants; several processes may do so side by side."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._folders = TenantFolders(settings)
        self._looked: float | None = None

    async def remove(self) -> None:
        """Remove what is left of jobs that were completed lately; called more than once in ten seconds, look once.

        Raises:
            StoreError: the database does not answer.
        """
        now = time.monotonic()
        if self._looked is not None and now - self._looked < _PAUSE_SECONDS:
            return
        seconds = _FIRST_SECONDS if self._looked is None else now - self._looked + _AGAIN_SECONDS
        async with self._store.read() as transaction:
            completed = await transaction.attempts.completed(seconds=seconds)
        await asyncio.to_thread(self._discard, completed)
        self._looked = now

    def _discard(self, completed: list[tuple[str, str]]) -> None:
        for tenant, id in completed:
            try:
                discard_run(self._folders.root(tenant), id)
            except OSError as error:
                _log.warning("The run's folder is not cleaned: %s", error, extra={"job_id": id})


def set_aside(root: Path, id: str) -> None:
    """Take states and pictures out of a run without reading or removing a byte; `discard_run` removes them.

    Args:
        root: of the run's tenant.
        id: of the run.

    Raises:
        OSError: the file system refuses.
    """
    with suppress(FileNotFoundError), _opened_run(root, id) as run_dir:
        aside = run_dir / f"{ASIDE}{secrets.token_hex(8)}"
        aside.mkdir()
        for path in (*run_dir.glob("state-*.safetensors"), run_dir / "dataset"):
            with suppress(FileNotFoundError):
                path.rename(aside / path.name)


def discard_run(root: Path, id: str) -> None:
    """Remove states and images of a job that is not resumed nor tried again, and what was set aside of them.

    Args:
        root: of the run's tenant. A link below it leads to no deletion.
        id: of the run.

    Raises:
        OSError: the file system refuses.
    """
    named = root / OWN_FOLDER / "runs" / id
    if not named.is_dir() or not any(path.suffix == ".safetensors" or path.is_dir() for path in named.iterdir()):
        return
    from influencerai.dataset.snapshot import discard_states, release_snapshot
    from influencerai.files.beneath import pinned, remove_tree  # with PIL, which a worker has no use for

    with ExitStack() as stack:
        stack.enter_context(suppress(FileNotFoundError))  # somebody else removes them too
        run_dir, blobs_dir = stack.enter_context(_opened_run(root, id)), None
        with suppress(FileNotFoundError):
            blobs_dir = stack.enter_context(pinned(root, f"{OWN_FOLDER}/blobs"))
        discard_states(run_dir)
        release_snapshot(run_dir, blobs_dir)
        for aside in [path.name for path in run_dir.glob(f"{ASIDE}*")]:
            with pinned(run_dir, aside) as folder:
                release_snapshot(folder, blobs_dir)
            remove_tree(run_dir, aside)


@contextmanager
def _opened_run(root: Path, id: str) -> Iterator[Path]:
    from influencerai.files.beneath import pinned

    with pinned(root, f"{OWN_FOLDER}/runs/{id}") as run_dir:
        yield run_dir
