"""Attempt: one try at one job; a training in a child, watched until it has ended, and what becomes of the job then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from influencerai.domain import TrainingFailure, TrainingResult, TrainingSpec
from influencerai.domain.problem import CANCELLATION, Problem
from influencerai.errors import FencedOffError, InfluencerAIError, StoreError
from influencerai.files.atomic_file import remove_leftovers
from influencerai.files.tenant_folders import TenantFolders
from influencerai.job_process.messages import (
    Completed,
    Failed,
    Prepared,
    ProcessMessage,
    Progress,
    Stopped,
)
from influencerai.job_process.supervisor import ForkServer, JobProcess, JobProcessGroup, start_training
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.job_rows import StoredJob
from influencerai.store.queue import Ending, Lease
from influencerai.store.requeue import RequeueReason, RetryRules
from influencerai.worker.cleanup import discard_run
from influencerai.worker.event_buffer import EventBuffer
from influencerai.worker.lease import LeaseKeeper
from influencerai.worker.training_request import Placement, make_request

_TICK_SECONDS = 0.2
Training = JobProcess | JobProcessGroup
_End = Callable[[], object]
"""Ends at once what is attended to."""


class _Stop(Protocol):
    """Asks it to end by itself."""

    async def __call__(self, *, is_cancel: bool) -> None: ...


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
        self._heard = time.monotonic()
        self._asked_at: float | None = None
        self._asked_to_cancel = False
        self._killed_for: str | None = None

    async def run(self) -> None:
        """From the claim to the end of the job, or to its return to the queue."""
        code: int | None = None
        try:
            try:
                if child := await self._start():
                    code = await self._supervise(child)
                await self._keeper.settle()
            finally:
                await self._keeper.let_go()
            await asyncio.to_thread(self._remove_leftovers)
            await self._end(code)
        except FencedOffError as error:
            _log.warning("Another attempt has the job: %s", error)
        await self._clean_up()

    async def _start(self) -> Training | None:
        """The training's process, or processes; None where there can be none, or it is not wanted any more.

        Raises:
            FencedOffError: the job is another's.
        """
        tenant, id = self._lease.tenant_id, self._lease.job_id
        files = await self._keeper.write(lambda transaction: transaction.jobs.artifacts(tenant, id))
        names = [file.name for file in files]
        try:
            order = make_request(
                self._lease, self._job, published=names, settings=self._settings, placement=self._placement
            )
        except InfluencerAIError as error:
            self._killed_for = _not_started(error)
            return None
        starting = asyncio.create_task(start_training(order, fork_server=self._fork_server))
        try:
            await self._attend(starting, end=starting.cancel)
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
                if self._asked_at is None:  # it hangs, or imports for longer than it may: it is not the job's fault
                    self._fork_server.close()
                    self._fork_server.warm()
            case InfluencerAIError() | OSError():
                self._killed_for = _not_started(started)
            case _:
                raise started
        return None

    async def _supervise(self, child: Training) -> int:
        """The exit code of the child, which is gone then, whatever happens.

        Raises:
            FencedOffError: the job is another's.
        """
        self._heard = time.monotonic()
        reader = asyncio.create_task(self._read(child))
        try:
            await self._attend(reader, end=child.kill, stop=child.stop)
            await reader
        finally:
            child.kill()
            await asyncio.gather(reader, return_exceptions=True)
            code = await child.wait()
        return code

    async def _attend(self, work: asyncio.Task[Any], *, end: _End, stop: _Stop | None = None) -> None:
        """Until `work` is done, do what is due: events to the database, and what that or the clock says to the child.

        Raises:
            FencedOffError: the job is another's, or must be taken for that.
        """
        while not work.done():
            await asyncio.wait({work}, timeout=_TICK_SECONDS)
            self._keeper.keep()
            now = time.monotonic()
            if now - self._heard > self._settings.stall_seconds:
                self._kill(end, f"The training was silent for {self._settings.stall_seconds:g} s.")
            if (self._keeper.cancel_requested or self._is_to_stop) and self._killed_for is None:
                await self._ask_to_stop(end, stop, now)

    @property
    def _is_to_stop(self) -> bool:
        """Whether the job is to go on elsewhere."""
        return self._stopping.is_set() or self._keeper.preempt_requested

    async def _ask_to_stop(self, end: _End, stop: _Stop | None, now: float) -> None:
        """A training saves its state at the next step; whatever else it does can be broken off at any moment."""
        if self._asked_at is None or (self._keeper.cancel_requested and not self._asked_to_cancel):
            self._asked_at = self._asked_at or now
            self._asked_to_cancel = self._keeper.cancel_requested
            if stop is not None:
                await stop(is_cancel=self._asked_to_cancel)
        grace = self._settings.cancel_grace_seconds if self._buffer.stage in ("training", "exporting") else 0
        if now - self._asked_at >= grace:
            self._kill(end, "It was killed, having been asked to stop.")

    def _kill(self, end: _End, reason: str) -> None:
        if self._killed_for is None:
            self._killed_for = reason
            end()

    async def _read(self, child: Training) -> None:
        async for message in child.messages():
            self._heard = time.monotonic()
            self._last_message = message
            if isinstance(message, Prepared):
                await child.go(await self._freeze(message))
            elif isinstance(message, Progress):
                self._buffer.note(message.event)

    async def _freeze(self, message: Prepared) -> TrainingSpec:
        """The spec to train: this one, or the one that an earlier attempt has frozen.

        Raises:
            FencedOffError: the job is another's.
        """
        self._output_dir = message.output_dir
        placed = self._placement
        plan = {
            "spec": message.spec.to_wire(),
            "warnings": list(message.warnings),
            "kind": None if placed is None else placed.kind,
            "accelerator": None if placed is None else placed.accelerator,
        }
        frozen = await self._keeper.write(
            lambda transaction: transaction.queue.freeze(self._lease, plan=plan, output_dir=message.output_dir)
        )
        return TrainingSpec.restore(frozen["spec"])

    async def _end(self, code: int | None) -> None:
        """Write how the attempt has ended, with the last events.

        Raises:
            FencedOffError: the job is another's.
        """
        events = self._buffer.take()

        async def write(transaction: Transaction) -> str:
            await self._keeper.record(transaction, events)
            return await self._conclude(transaction, code, await self._published(transaction))

        _log.info(await self._keeper.write(write), extra={"job_id": self._lease.job_id})

    async def _published(self, transaction: Transaction) -> list[str]:
        """Names of the LoRA files of all attempts; those that are not there any more are forgotten.

        Of the epochs' files, perhaps only the last are kept.
        """
        files = await transaction.jobs.artifacts(self._lease.tenant_id, self._lease.job_id)
        gone = [file.name for file in files if not (self._root / file.path).exists()]
        await transaction.queue.withdraw(self._lease, gone)
        return [file.name for file in files if file.kind == "lora" and file.name not in gone]

    async def _conclude(self, transaction: Transaction, code: int | None, published: Sequence[str]) -> str:
        """Write the end, or the return to the queue; what is to be said of it in the log."""
        match self._last_message:
            case Completed(result=result):
                return await self._finish(transaction, "completed", self._completed(result))
            case _ if self._keeper.cancel_requested:
                return await self._finish(transaction, "cancelled", self._cancelled(published), CANCELLATION)
            case Stopped():
                return await self._requeue(transaction, "released", None)
            case Failed(retryable=True, failure=failure):
                return await self._requeue(transaction, "broken", self._problem(failure))
            case Failed(failure=failure):
                problem = self._problem(failure)
                return await self._finish(transaction, "failed", self._failed(failure, problem), problem)
            case _ if self._is_to_stop:
                return await self._requeue(transaction, "released", None)
            case _:
                reason = self._killed_for or f"The training process ended unexpectedly ({_ending(code)})."
                problem = Problem(
                    self._shown(reason), "killed", "See the log of the worker, and the memory of its node."
                )
                return await self._requeue(transaction, "broken", problem)

    async def _finish(
        self, transaction: Transaction, ending: Ending, result: Mapping[str, Any], problem: Problem | None = None
    ) -> str:
        await transaction.queue.finish(self._lease, ending=ending, result=result, problem=problem)
        return f"The job has ended: {ending}."

    async def _requeue(self, transaction: Transaction, how: RequeueReason, problem: Problem | None) -> str:
        retries = RetryRules.of(self._settings)
        await transaction.queue.requeue(self._lease, how, problem=problem, retries=retries)
        return f"The job goes back to the queue: {problem.message if problem else how}"

    def _remove_leftovers(self) -> None:
        """What a killed child was writing: while the lease lasts, nobody else writes to these folders."""
        for folder in (self._run_dir, self._root / self._output_dir):
            with suppress(OSError):
                remove_leftovers(folder)

    async def _clean_up(self) -> None:
        """A completed job is not resumed: its states and images go, whoever has completed it."""
        try:
            async with self._store.read() as transaction:
                job = await transaction.jobs.get(self._lease.tenant_id, self._lease.job_id)
            if job is not None and job.status == "completed":
                await asyncio.to_thread(discard_run, self._root, self._lease.job_id)
        except (StoreError, OSError) as error:
            _log.warning("The run's folder is not cleaned: %s", error)

    def _completed(self, result: TrainingResult) -> dict[str, Any]:
        document = result.to_wire()
        document["warnings"] = [self._shown(text) for text in result.warnings]
        return document

    def _problem(self, failure: TrainingFailure) -> Problem:
        remedy = None if failure.remedy is None else self._shown(failure.remedy)
        return Problem(self._shown(failure.error), failure.code, remedy)

    def _failed(self, failure: TrainingFailure, problem: Problem) -> dict[str, Any]:
        return {**failure.to_wire(), **problem.to_wire()}

    def _cancelled(self, published: Sequence[str]) -> dict[str, Any]:
        epoch = self._buffer.epoch
        if isinstance(self._last_message, Stopped | Failed):
            epoch = self._last_message.failure.epoch
        return {**CANCELLATION.to_wire(), "cancelled": True, "epoch": epoch, "partialCheckpoints": list(published)}

    def _shown(self, text: str) -> str:
        return self._folders.shown(text, tenant=self._lease.tenant_id)


def _not_started(error: Exception) -> str:
    return f"No training process could be started: {error}"


def _ending(code: int | None) -> str:
    if code is None:
        return "it has not begun"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
