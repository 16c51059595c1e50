"""Remains: states and images of completed jobs, where the attempt was killed before it could remove them."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.tenant_folders import TenantFolders

_PAUSE_SECONDS = 10.0
_FIRST_SECONDS = 24 * 3600.0
"""How far back the first look goes: to what was completed before this process began."""
_AGAIN_SECONDS = 60.0
"""For so long it is tried again where the file system refuses."""
_log = logging.getLogger(__name__)


class Remains:
    """What is left of all tenants' completed jobs; several processes may remove it side by side."""

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
                discard_run(self._folders.run_dir(tenant, id), self._folders.blobs_dir(tenant))
            except OSError as error:
                _log.warning("The run's folder is not cleaned: %s", error, extra={"job_id": id})


def discard_run(run_dir: Path, blobs_dir: Path) -> None:
    """Remove a completed job's states and images: it is not resumed, nor tried again.

    Raises:
        OSError: the file system refuses.
    """
    if not run_dir.is_dir() or not any(path.suffix == ".safetensors" or path.is_dir() for path in run_dir.iterdir()):
        return
    from influencerai.train.snapshot import discard_states, release_snapshot  # with PIL, which a worker has no use for

    with suppress(FileNotFoundError):  # somebody else removes them too
        discard_states(run_dir)
        release_snapshot(run_dir, blobs_dir)
