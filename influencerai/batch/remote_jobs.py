"""The jobs of a batch on a server: a few of them submitted at a time, each followed until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from influencerai.batch.check import Checked
from influencerai.batch.listener import BatchListener
from influencerai.batch.remote import BatchServer, Ticket
from influencerai.batch.remote_datasets import OF_THE_SERVER
from influencerai.batch.rows import BatchRow
from influencerai.batch.trainings import Training
from influencerai.client import AsyncInfluencerAIClient
from influencerai.domain.job_log import JobEvent
from influencerai.errors import ConflictError, InfluencerAIError, NotFoundError
from influencerai.interruption import InterruptedRun, SignalReceived, run_until_signal


class ServerBatch:
    """Checks and trains on a server.

    Args:
        server: whose jobs they become.
        at_once: jobs that are active at a time.
        fail_fast: submit no more after a failure; what is submitted is followed to its end.
    """

    def __init__(self, server: BatchServer, *, at_once: int, fail_fast: bool) -> None:
        self._server = server
        self._at_once = at_once
        self._fail_fast = fail_fast

    def check(self, trainings: Sequence[Training]) -> list[Checked]:
        """See `BatchServer.check`."""
        return run_until_signal(self._server.check(trainings))

    def train(self, checked: Sequence[Checked], rows: Sequence[BatchRow], listener: BatchListener) -> None:
        """Run every training whose row has not ended; one that is refused or fails ends no other.

        Raises:
            InterruptedRun: Ctrl-C or SIGTERM ended the command; submitted jobs keep running.
            UnreachableError: the server has not answered for ten minutes, or not at all when a job was submitted.
            StoreError, AuthenticationError, PermissionDeniedError: it accepts no more requests from this tenant.
        """
        self._server.say = listener.say
        jobs = _Jobs(self._server, listener, at_once=self._at_once, fail_fast=self._fail_fast)
        try:
            run_until_signal(jobs.train(checked, rows))
        except SignalReceived as interrupt:
            active = sum(row.job_id is not None and not row.has_ended for row in rows)
            text = f"Interrupted. Submitted jobs keep running ({active}); no more are submitted."
            raise InterruptedRun(text, signal_number=interrupt.number) from interrupt
        except OF_THE_SERVER as error:
            error.add_note(
                "Submitted jobs keep running. The same command follows them when the server accepts requests again."
            )
            raise


class _Jobs:
    """Submits and follows, inside one event loop."""

    def __init__(self, server: BatchServer, listener: BatchListener, *, at_once: int, fail_fast: bool) -> None:
        self._server = server
        self._listener = listener
        self._slots = asyncio.Semaphore(at_once)
        self._fail_fast = fail_fast
        self._has_failed = False

    async def train(self, checked: Sequence[Checked], rows: Sequence[BatchRow]) -> None:
        """Submit and follow all jobs that have not ended; those that were submitted earlier come first."""
        todo = [(item, row) for item, row in zip(checked, rows, strict=True) if not row.has_ended]
        todo.sort(key=lambda pair: not pair[0].resumes)
        async with self._server.client() as client:
            tasks = [asyncio.create_task(self._train(client, item, row)) for item, row in todo]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _train(self, client: AsyncInfluencerAIClient, item: Checked, row: BatchRow) -> None:
        async with self._slots:
            if self._fail_fast and self._has_failed:
                return
            row.begin()
            row.stage = "submitting"
            self._listener(row)
            try:
                row.complete(await self._result(client, item, row))
            except OF_THE_SERVER:
                raise
            except InfluencerAIError as error:
                row.fail(str(error))
            self._has_failed |= row.error is not None
            self._listener(row)

    async def _result(self, client: AsyncInfluencerAIClient, item: Checked, row: BatchRow) -> dict[str, Any]:
        """Submit the training and follow its job."""
        try:
            row.job_id = await self._job_id(client, item)
        finally:
            row.status, row.stage = "waiting", "waiting" if row.job_id else ""
        self._listener(row)
        try:
            job = await client.jobs.wait_for_completion(row.job_id, on_progress=self._updater(item, row))
        except NotFoundError as error:
            raise NotFoundError("The job was deleted.") from error
        return job.result or {}

    async def _job_id(self, client: AsyncInfluencerAIClient, item: Checked) -> str:
        """The job to follow: the one that is active, another try at the one that failed, or a new one."""
        ticket = self._server.tickets[item.training.name]
        former = ticket.entry.job_id
        if item.resumes and item.standing == "open":
            assert former is not None
            return former
        job_id = await self._retried(client, ticket, former) if item.resumes and former else None
        if job_id is None:
            await self._server.confirm_config(client, ticket)
            if (earlier := ticket.earlier_job_id) and ticket.ends_earlier_job:
                with suppress(ConflictError, NotFoundError):  # it has ended by itself
                    await self._server.patiently(lambda: client.jobs.cancel(earlier))
            job = await self._server.patiently(
                lambda: client.jobs.create(
                    dataset_id=ticket.dataset_id, lora_config_id=ticket.config_id, idempotency_key=ticket.key
                )
            )
            job_id = job.id
        entry = ticket.entry.model_copy(update={"job_id": job_id})
        self._server.state.put(item.training.name, entry)
        return job_id

    async def _retried(self, client: AsyncInfluencerAIClient, ticket: Ticket, former: str) -> str | None:
        """A job that continues from the last training state of `former`; None where it cannot be retried."""
        try:
            job = await self._server.patiently(lambda: client.jobs.retry(former, idempotency_key=ticket.key))
        except (ConflictError, NotFoundError):
            return None
        return job.id

    def _updater(self, item: Checked, row: BatchRow) -> _RowUpdater:
        return _RowUpdater(row, self._listener, told=frozenset(item.warnings))


class _RowUpdater:
    """Applies the events of one job to its row."""

    def __init__(self, row: BatchRow, listener: BatchListener, *, told: frozenset[str]) -> None:
        self._row = row
        self._listener = listener
        self._told = told

    def __call__(self, event: JobEvent) -> None:
        if self._row.apply(event):
            self._listener(self._row)
        elif event.type == "warning" and (text := str(event.data.get("message"))) not in self._told:
            self._listener.say(f"{self._row.name}  Warning: {text}")
