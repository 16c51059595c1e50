"""Worker: claims one job after the other from the queue, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from contextlib import suppress

from influencerai.domain.problem import Problem
from influencerai.errors import InfluencerAIError
from influencerai.job_process.supervisor import ForkServer
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.job_rows import StoredJob
from influencerai.store.pending_jobs import ClaimRules
from influencerai.store.queue import Lease
from influencerai.store.requeue import RetryRules
from influencerai.worker.attempt import JobAttempt

_GREETINGS_PER_LEASE = 6
_OUTAGE_SECONDS = 1.0
"""Pause between attempts to reach a database that does not answer."""
_log = logging.getLogger(__name__)


class Worker:
    """Claims and trains, one job at a time."""

    def __init__(self, settings: Settings, *, node: str | None = None) -> None:
        self._settings = settings
        self._store = Store(settings.database_url)
        self._fork_server = ForkServer()
        self._stopping = asyncio.Event()
        self.id = secrets.token_hex(8)
        self.node = node or f"{socket.gethostname()}:{os.getpid()}"
        self._job_id: str | None = None

    def stop(self) -> None:
        """Stop after the current job has saved its state and returned to the queue."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            SchemaError: the database is not of this version.
        """
        await self._store.database.check()
        self._fork_server.warm()
        greeting = asyncio.create_task(self._greet())
        try:
            while not self._stopping.is_set():
                if pause := await self._work():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), pause)
        finally:
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)
            with suppress(InfluencerAIError):
                async with self._store.write() as transaction:
                    await transaction.workers.leave(self.id)
            self._fork_server.close()
            await self._store.database.close()

    async def _work(self) -> float:
        """Claim and train one job, if there is one; returns the seconds to wait before the next claim."""
        held_since = time.monotonic()
        try:
            claimed = await self._claim()
        except InfluencerAIError as error:
            _log.warning("No job can be claimed: %s", error)
            return max(_OUTAGE_SECONDS, self._settings.poll_seconds)
        if claimed is None:
            return self._settings.poll_seconds
        lease, job = claimed
        self._job_id = lease.job_id
        _log.info("Attempt %s begins.", lease.fence, extra={"job_id": lease.job_id, "tenant": lease.tenant_id})
        attempt = JobAttempt(
            lease,
            job,
            store=self._store,
            settings=self._settings,
            fork_server=self._fork_server,
            stopping=self._stopping,
            held_since=held_since,
        )
        try:
            await carry_out(attempt, lease, store=self._store, settings=self._settings)
        finally:
            self._job_id = None
        return 0

    async def _claim(self) -> tuple[Lease, StoredJob] | None:
        rules = ClaimRules.of(self._settings)
        async with self._store.read() as transaction:  # the usual answer costs no lock
            if not await transaction.pending_jobs.has_work(rules):
                return None
        async with self._store.write() as transaction:
            await transaction.queue.rescue(retries=RetryRules.of(self._settings))
            return await transaction.queue.claim(node=self.node, rules=rules)

    async def _greet(self) -> None:
        while True:
            try:
                async with self._store.write() as transaction:
                    await transaction.workers.greet(self.id, node=self.node, job_id=self._job_id)
            except InfluencerAIError as error:
                _log.warning("The database does not hear this worker: %s", error)
            await asyncio.sleep(self._settings.lease_seconds / _GREETINGS_PER_LEASE)


async def carry_out(attempt: JobAttempt, lease: Lease, *, store: Store, settings: Settings) -> None:
    """Run the attempt; requeue its job after an unexpected error."""
    try:
        await attempt.run()
    except Exception as error:
        _log.exception("The attempt broke.", extra={"job_id": lease.job_id})
        text = f"The worker failed ({type(error).__name__})."
        problem = Problem(text, "internal", "See the log of the worker.")
        with suppress(InfluencerAIError):
            async with store.write() as transaction:
                await transaction.queue.requeue(lease, "broken", problem=problem, retries=RetryRules.of(settings))
