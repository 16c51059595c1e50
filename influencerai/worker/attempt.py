"""Attempt: one try at one job; a training in a child, and its lease, news and end in the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from influencerai.domain import LoraConfig, TrainingFailure, TrainingResult, TrainingSpec
from influencerai.domain.attempt import (
    AttemptOrder,
    ChildMessage,
    Completed,
    Failed,
    Prepared,
    Progress,
    Stopped,
)
from influencerai.errors import FencedOffError, StoreError, TrainingError
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.jobs import StoredJob
from influencerai.store.queue import Budgets, Lease
from influencerai.tenant_folders import TenantFolders
from influencerai.worker.child import ForkServer, TrainingChild
from influencerai.worker.journal import Journal

_LOOKS_PER_LEASE = 6
"""A lease is renewed so often before it expires, whatever happens."""
_TICK_SECONDS = 0.2
_log = logging.getLogger(__name__)


class JobAttempt:
    """Trains the job that a lease is for, until it has ended or is another's."""

    def __init__(
        self,
        lease: Lease,
        job: StoredJob,
        *,
        store: Store,
        settings: Settings,
        fork_server: ForkServer,
        stopping: asyncio.Event,
    ) -> None:
        self._lease = lease
        self._job = job
        self._store = store
        self._settings = settings
        self._fork_server = fork_server
        self._stopping = stopping
        self._folders = TenantFolders(settings)
        self._root = self._folders.root(lease.tenant_id)
        self._journal = Journal(root=self._root)
        self._budgets = Budgets(lost=settings.lost_attempts, broken=settings.broken_attempts)
        self._renewed = self._heard = time.monotonic()
        self._last_message: ChildMessage | None = None
        self._warnings: tuple[str, ...] = tuple((job.plan or {}).get("warnings", ()))
        self._cancelled = False
        self._killed_for: str | None = None
        self._asked_at: float | None = None

    async def run(self) -> None:
        """From the claim to the end of the job, or to its return to the queue."""
        try:
            child = await TrainingChild.start(self._order(), fork_server=self._fork_server)
        except (TrainingError, OSError) as error:
            reason = f"No training process could be started: {error}"
            await self._end(lambda: self._give_back("broken", reason))
            return
        reader = asyncio.create_task(self._read(child))
        try:
            while not reader.done():
                await asyncio.wait({reader}, timeout=_TICK_SECONDS)
                await self._look_after(child)
            reader.result()
            code = await child.wait()
        except FencedOffError as error:
            _log.warning("Another attempt has the job: %s", error)
            return
        finally:
            child.kill()
            await asyncio.gather(reader, return_exceptions=True)
            await child.wait()
        await self._end(lambda: self._conclude(code))

    def _order(self) -> AttemptOrder:
        tenant, snapshot, settings = self._lease.tenant_id, self._job.snapshot, self._settings
        plan = self._job.plan
        return AttemptOrder(
            job_id=self._lease.job_id,
            root=self._folders.make(tenant),
            dataset=snapshot["dataset"]["path"],
            config=LoraConfig.parse(snapshot["config"]),
            output_dir=self._job.output_dir,
            run_dir=self._folders.run_dir(tenant, self._lease.job_id),
            blobs_dir=self._folders.blobs_dir(tenant),
            spec=None if plan is None else TrainingSpec.model_validate(plan["spec"]),
            warnings=self._warnings,
            models_dirs=settings.models_dirs,
            cache_dir=settings.cache_dir,
            cache_max_bytes=int(settings.cache_max_gib * 2**30),
            max_image_pixels=settings.max_image_pixels,
            allow_downloads=settings.serves_downloads,
            as_path=False,
            device=settings.device,
            threads=settings.usable_threads,
            deterministic=settings.deterministic,
        )

    async def _read(self, child: TrainingChild) -> None:
        async for message in child.messages():
            self._heard = time.monotonic()
            self._last_message = message
            if isinstance(message, Prepared):
                await child.go(await self._freeze(message))
            elif isinstance(message, Progress):
                self._journal.note(message.event)

    async def _freeze(self, message: Prepared) -> TrainingSpec:
        """The spec to train: this one, or the one that an earlier attempt has frozen.

        Raises:
            FencedOffError: the job is another's.
        """
        self._warnings = message.warnings
        plan = {"spec": message.spec.to_wire(), "warnings": list(message.warnings)}
        while True:
            try:
                async with self._store.write() as transaction:
                    frozen = await transaction.queue.freeze(self._lease, plan=plan, output_dir=message.output_dir)
                return TrainingSpec.model_validate(frozen["spec"])
            except StoreError as error:
                await self._wait_for_database(error)

    async def _look_after(self, child: TrainingChild) -> None:
        """What is due: news to the database, and what that or the clock says to the child."""
        now = time.monotonic()
        lease_seconds = self._settings.lease_seconds
        if self._journal.is_due or now - self._renewed > lease_seconds / _LOOKS_PER_LEASE:
            await self._record()
        if now - self._renewed > lease_seconds:
            raise FencedOffError("The database has not been reached for as long as the lease lasts.")
        if now - self._heard > self._settings.stall_seconds:
            self._kill(child, f"The training was silent for {self._settings.stall_seconds:g} s.")
        if (self._cancelled or self._stopping.is_set()) and self._killed_for is None:
            await self._ask_to_stop(child, now)

    async def _record(self) -> None:
        news = self._journal.take()
        try:
            async with self._store.write() as transaction:
                asked = await transaction.queue.record(self._lease, seconds=self._settings.lease_seconds, **news)
        except StoreError as error:
            _log.warning("The news of the job wait: %s", error)
            self._journal.put_back(news)
            return
        self._renewed = time.monotonic()
        self._cancelled = self._cancelled or asked

    async def _ask_to_stop(self, child: TrainingChild, now: float) -> None:
        """A training saves its state at the next step; whatever else it does can be broken off at any moment."""
        if self._asked_at is None:
            self._asked_at = now
            await child.stop()
        grace = self._settings.cancel_grace_seconds if self._journal.stage in ("training", "exporting") else 0
        if now - self._asked_at >= grace:
            self._kill(child, "It was killed, having been asked to stop.")

    def _kill(self, child: TrainingChild, reason: str) -> None:
        if self._killed_for is None:
            self._killed_for = reason
            child.kill()

    async def _conclude(self, code: int) -> None:
        """Write how the attempt has ended, all of its news before that.

        Raises:
            FencedOffError: the job is another's.
            StoreError: the database does not answer.
        """
        news = self._journal.take()
        try:
            async with self._store.write() as transaction:
                self._cancelled |= await transaction.queue.record(
                    self._lease, seconds=self._settings.lease_seconds, **news
                )
        except StoreError:
            self._journal.put_back(news)
            raise
        match self._last_message:
            case Completed(result=result):
                await self._finish("completed", self._completed(result))
                await asyncio.to_thread(_clean_up, self._folders, self._lease)
            case _ if self._cancelled:
                await self._finish("cancelled", self._cancelled_result(), error="Cancelled", code="cancelled")
            case Stopped():
                await self._give_back("released", None)
            case Failed(retryable=True, message=message):
                await self._give_back("broken", self._shown(message))
            case Failed(code=error_code, message=message, failure=failure):
                await self._finish("failed", self._failed(failure), error=self._shown(message), code=error_code)
            case _ if self._stopping.is_set():
                await self._give_back("released", None)
            case _:
                reason = self._killed_for or f"The training process ended unexpectedly ({_ending(code)})."
                await self._give_back("broken", reason)

    async def _finish(
        self, ending: Any, result: Mapping[str, Any], *, error: str | None = None, code: str | None = None
    ) -> None:
        async with self._store.write() as transaction:
            await transaction.queue.finish(self._lease, ending=ending, result=result, error=error, code=code)
        _log.info("The job has ended: %s", ending)

    async def _give_back(self, how: Any, error: str | None) -> None:
        async with self._store.write() as transaction:
            await transaction.queue.give_back(self._lease, how, error=error, budgets=self._budgets)
        _log.warning("The job goes back to the queue (%s): %s", how, error)

    async def _end(self, write: Any) -> None:
        """Write the end, trying again while the lease lasts; then it is left to another attempt."""
        while True:
            try:
                await write()
                return
            except FencedOffError as error:
                _log.warning("Another attempt has the job: %s", error)
                return
            except StoreError as error:
                try:
                    await self._wait_for_database(error)
                except FencedOffError:
                    return

    async def _wait_for_database(self, error: StoreError) -> None:
        if time.monotonic() - self._renewed > self._settings.lease_seconds:
            raise FencedOffError("The database has not been reached for as long as the lease lasts.") from error
        _log.warning("The attempt waits for the database: %s", error)
        await asyncio.sleep(_TICK_SECONDS)

    def _completed(self, result: TrainingResult) -> dict[str, Any]:
        document = result.to_wire()
        document["warnings"] = [self._shown(text) for text in result.warnings]
        return document

    def _failed(self, failure: TrainingFailure) -> dict[str, Any]:
        return {**failure.to_wire(), "error": self._shown(failure.error)}

    def _cancelled_result(self) -> dict[str, Any]:
        message = self._last_message
        partial = message.failure.partial_checkpoints if isinstance(message, Stopped | Failed) else ()
        epoch = message.failure.epoch if isinstance(message, Stopped | Failed) else self._journal.epoch
        return {"error": "Cancelled", "cancelled": True, "epoch": epoch, "partialCheckpoints": list(partial)}

    def _shown(self, text: str) -> str:
        """A message as its tenant may see it: paths begin at the root."""
        return text.replace(f"{self._root}/", "").replace(f"{self._settings.root}/", "")


def _clean_up(folders: TenantFolders, lease: Lease) -> None:
    """A completed job is not resumed: its states and images go."""
    from influencerai.train.snapshot import discard_states, release_snapshot

    run_dir = folders.run_dir(lease.tenant_id, lease.job_id)
    try:
        discard_states(run_dir)
        release_snapshot(run_dir, folders.blobs_dir(lease.tenant_id))
    except OSError as error:
        _log.warning("The run's folder could not be cleaned: %s", error)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
