"""Attempt: one try at one job, from the claimed lease to the end of the job or its return to the queue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from influencerai.domain import TrainingSpec
from influencerai.errors import FencedOffError, InfluencerAIError, StoreError
from influencerai.files.atomic_file import remove_leftovers
from influencerai.files.tenant_folders import TenantFolders
from influencerai.job_process.messages import Prepared, ProcessMessage, Progress
from influencerai.job_process.supervisor import ForkServer, JobProcess, JobProcessGroup, start_training
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.job_rows import StoredJob
from influencerai.store.queue import Lease
from influencerai.store.requeue import RetryRules
from influencerai.worker.cleanup import discard_run
from influencerai.worker.conclusion import Conclusion
from influencerai.worker.event_buffer import EventBuffer
from influencerai.worker.lease import LeaseKeeper
from influencerai.worker.outcome import decide_outcome
from influencerai.worker.training_request import Placement, make_request

_TICK_SECONDS = 0.2
_INTERRUPTIBLE_STAGES = ("training", "exporting")
"""In these a job process saves its state before it stops; everything earlier is repeated, and needs no grace."""
Training = JobProcess | JobProcessGroup
_Kill = Callable[[], object]
_log = logging.getLogger(__name__)


class _Stop(Protocol):
    async def __call__(self, *, is_cancel: bool) -> None: ...


class JobAttempt:
    """Trains the job of one lease, until the job process has ended or the lease is lost."""

    def __init__(
        self,
        lease: Lease,
        job: StoredJob,
        *,
        store: Store,
        settings: Settings,
        fork_server: ForkServer,
        stopping: asyncio.Event,
        placement: Placement | None = None,
        held_since: float | None = None,
    ) -> None:
        self._lease = lease
        self._job = job
        self._store = store
        self._settings = settings
        self._fork_server = fork_server
        self._stopping = stopping
        self._placement = placement
        folders = TenantFolders(settings)
        self._folders = folders
        self._root = folders.root(lease.tenant_id)
        self._run_dir = folders.run_dir(lease.tenant_id, lease.job_id)
        self._buffer = EventBuffer(root=self._root)
        self._keeper = LeaseKeeper(
            lease, store=store, buffer=self._buffer, seconds=settings.lease_seconds, since=held_since
        )
        self._output_dir = job.output_dir
        self._last_message: ProcessMessage | None = None
        self._last_sign_at = time.monotonic()
        self._stop_sent_at: float | None = None
        self._cancel_sent = False
        self._killed_for: str | None = None

    async def run(self) -> None:
        """Start the job process, supervise it, and write how the attempt has ended."""
        code: int | None = None
        try:
            try:
                if training := await self._start():
                    code = await self._supervise(training)
                await self._keeper.settle()
            finally:
                await self._keeper.let_go()
            await asyncio.to_thread(self._remove_leftovers)
            await self._conclude(code)
        except FencedOffError as error:
            _log.warning("Another attempt has the job: %s", error)
        await self._clean_up()

    async def _start(self) -> Training | None:
        """Start the job process, or one for each GPU; None where that fails or is no longer wanted.

        Raises:
            FencedOffError: the job belongs to another attempt.
        """
        tenant, id = self._lease.tenant_id, self._lease.job_id
        files = await self._keeper.write(lambda transaction: transaction.jobs.artifacts(tenant, id))
        names = [file.name for file in files]
        try:
            request = make_request(
                self._lease, self._job, published=names, settings=self._settings, placement=self._placement
            )
        except InfluencerAIError as error:
            self._killed_for = _not_started(error)
            return None
        starting = asyncio.create_task(start_training(request, fork_server=self._fork_server))
        try:
            await self._attend(starting, kill=starting.cancel)
        except FencedOffError:
            starting.cancel()
            [started] = await asyncio.gather(starting, return_exceptions=True)
            if isinstance(started, Training):
                started.kill()
            raise
        [started] = await asyncio.gather(starting, return_exceptions=True)
        match started:
            case JobProcess() | JobProcessGroup():
                return started
            case asyncio.CancelledError():
                if self._stop_sent_at is None:  # the fork server hangs, or imports for longer than the stall limit
                    self._fork_server.close()
                    self._fork_server.warm()
            case InfluencerAIError() | OSError():
                self._killed_for = _not_started(started)
            case _:
                raise started
        return None

    async def _supervise(self, training: Training) -> int:
        """Read the messages of the job process until it has ended; returns its exit code.

        The process is gone when this returns or raises.

        Raises:
            FencedOffError: the job belongs to another attempt.
        """
        self._last_sign_at = time.monotonic()
        reader = asyncio.create_task(self._read(training))
        try:
            await self._attend(reader, kill=training.kill, stop=training.stop)
            await reader
        finally:
            training.kill()
            await asyncio.gather(reader, return_exceptions=True)
            code = await training.wait()
        return code

    async def _attend(self, work: asyncio.Task[Any], *, kill: _Kill, stop: _Stop | None = None) -> None:
        """Until `work` is done: keep the lease, write events, pass on requests to stop, kill what is silent.

        Raises:
            FencedOffError: the job belongs to another attempt, or the lease could not be renewed in time.
        """
        while not work.done():
            await asyncio.wait({work}, timeout=_TICK_SECONDS)
            self._keeper.keep()
            now = time.monotonic()
            if now - self._last_sign_at > self._settings.stall_seconds:
                self._kill(kill, f"The training was silent for {self._settings.stall_seconds:g} s.")
            if (self._keeper.cancel_requested or self._stop_requested) and self._killed_for is None:
                await self._pass_on_stop(kill, stop, now)

    @property
    def _stop_requested(self) -> bool:
        """Whether the attempt is to stop and the job to continue in a later one."""
        return self._stopping.is_set() or self._keeper.preempt_requested

    async def _pass_on_stop(self, kill: _Kill, stop: _Stop | None, now: float) -> None:
        """Tell the process once to stop, and once more if the job is cancelled later; kill it after the grace."""
        if self._stop_sent_at is None or (self._keeper.cancel_requested and not self._cancel_sent):
            self._stop_sent_at = self._stop_sent_at or now
            self._cancel_sent = self._keeper.cancel_requested
            if stop is not None:
                await stop(is_cancel=self._cancel_sent)
        grace = self._settings.cancel_grace_seconds if self._buffer.stage in _INTERRUPTIBLE_STAGES else 0
        if now - self._stop_sent_at >= grace:
            self._kill(kill, "The training did not stop in time and was killed.")

    def _kill(self, kill: _Kill, reason: str) -> None:
        if self._killed_for is None:
            self._killed_for = reason
            kill()

    async def _read(self, training: Training) -> None:
        async for message in training.messages():
            self._last_sign_at = time.monotonic()
            self._last_message = message
            if isinstance(message, Prepared):
                await training.go(await self._freeze(message))
            elif isinstance(message, Progress):
                self._buffer.note(message.event)

    async def _freeze(self, message: Prepared) -> TrainingSpec:
        """Freeze the spec of the first attempt; returns the frozen one.

        Raises:
            FencedOffError: the job belongs to another attempt.
        """
        self._output_dir = message.output_dir
        placement = self._placement
        plan = {
            "spec": message.spec.to_wire(),
            "warnings": list(message.warnings),
            "kind": None if placement is None else placement.kind,
            "accelerator": None if placement is None else placement.accelerator,
        }
        frozen = await self._keeper.write(
            lambda transaction: transaction.queue.freeze(self._lease, plan=plan, output_dir=message.output_dir)
        )
        return message.spec if frozen["spec"] == plan["spec"] else TrainingSpec.restore(frozen["spec"])

    async def _conclude(self, code: int | None) -> None:
        """Write the last events and how the attempt has ended, in one transaction.

        Raises:
            FencedOffError: the job belongs to another attempt.
        """
        events = self._buffer.take()

        async def write(transaction: Transaction) -> str:
            await self._keeper.record(transaction, events)  # which may return a request to cancel
            conclusion = self._conclusion(code)
            return await conclusion.write(
                transaction, self._lease, root=self._root, retries=RetryRules.of(self._settings)
            )

        _log.info(await self._keeper.write(write), extra={"job_id": self._lease.job_id})

    def _conclusion(self, code: int | None) -> Conclusion:
        outcome = decide_outcome(
            self._last_message, cancel_requested=self._keeper.cancel_requested, stop_requested=self._stop_requested
        )
        return Conclusion(
            outcome=outcome,
            message=self._last_message,
            epoch=self._buffer.epoch,
            reason=self._killed_for or f"The training process ended unexpectedly ({_ending(code)}).",
            shown=lambda text: self._folders.shown(text, tenant=self._lease.tenant_id),
        )

    def _remove_leftovers(self) -> None:
        """Remove temporary files of a killed process: while the lease lasts, nobody else writes to these folders."""
        for folder in (self._run_dir, self._root / self._output_dir):
            with suppress(OSError):
                remove_leftovers(folder)

    async def _clean_up(self) -> None:
        """Remove states and images of a completed job, whichever attempt has completed it."""
        try:
            async with self._store.read() as transaction:
                job = await transaction.jobs.get(self._lease.tenant_id, self._lease.job_id)
            if job is not None and job.status == "completed":
                await asyncio.to_thread(discard_run, self._root, self._lease.job_id)
        except (StoreError, OSError) as error:
            _log.warning("The run's folder is not cleaned: %s", error)


def _not_started(error: Exception) -> str:
    return f"No training process could be started: {error}"


def _ending(code: int | None) -> str:
    if code is None:
        return "it was never started"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
