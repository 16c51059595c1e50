"""LeaseKeeper: renews an attempt's lease and writes its events, through outages of the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from influencerai.errors import FencedOffError, StoreError
from influencerai.store import Store, Transaction
from influencerai.store.queue import Lease
from influencerai.worker.event_buffer import EventBuffer

RENEWALS_PER_LEASE = 6
"""A lease is renewed so often before it expires, whatever happens."""
_RETRY_SECONDS = 0.2
_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class LeaseKeeper:
    """Writes for one attempt, for as long as the lease lasts by this machine's clock."""

    def __init__(
        self, lease: Lease, *, store: Store, buffer: EventBuffer, seconds: float, since: float | None = None
    ) -> None:
        """`since`, on this machine's monotonic clock, is a moment before the lease was taken; now by default."""
        self._lease = lease
        self._store = store
        self._buffer = buffer
        self._seconds = seconds
        self._tried = time.monotonic()
        self._renewed = self._tried if since is None else since
        self._recording: asyncio.Task[None] | None = None
        self.cancel_requested = False
        """Whether the database has returned a request to cancel the job."""
        self.preempt_requested = False
        """Whether the database has returned a request to preempt the attempt."""

    def keep(self) -> None:
        """To be called again and again. Writes what is due on the side, so that a database that hangs holds nobody up.

        Raises:
            FencedOffError: the job is another's, or must be taken for that.
        """
        now = time.monotonic()
        if self._recording is not None and self._recording.done():
            recorded, self._recording = self._recording, None
            recorded.result()
        if now - self._renewed > self._seconds:
            raise _unreached()
        is_time = now - self._tried > self._seconds / RENEWALS_PER_LEASE
        if self._recording is None and (self._buffer.is_due or is_time):
            self._recording = asyncio.create_task(self._write_events())

    async def settle(self) -> None:
        """Wait for what is being written on the side.

        Raises:
            FencedOffError: the job is another's.
        """
        if self._recording is not None:
            await self._recording

    async def let_go(self) -> None:
        """Write nothing more on the side."""
        if self._recording is not None:
            self._recording.cancel()
            await asyncio.wait({self._recording}, timeout=_RETRY_SECONDS)

    async def write(self, work: Callable[[Transaction], Awaitable[Result]]) -> Result:
        """Do `work` in a transaction, again while the database is away and the lease lasts.

        Raises:
            FencedOffError: the job is another's, or must be taken for that.
        """
        while True:
            try:
                async with self._store.write() as transaction:
                    return await work(transaction)
            except StoreError as error:
                if time.monotonic() - self._renewed > self._seconds:
                    raise _unreached() from error
                _log.warning("The attempt waits for the database: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def record(self, transaction: Transaction, events: Mapping[str, Any]) -> None:
        """Renew the lease and write events; notes what is requested of the attempt.

        Raises:
            FencedOffError: the job is another's.
        """
        requests = await transaction.queue.record(self._lease, seconds=self._seconds, **events)
        self.cancel_requested = self.cancel_requested or requests.cancel_requested
        self.preempt_requested = self.preempt_requested or requests.preempt_requested

    async def _write_events(self) -> None:
        events = self._buffer.take()
        self._tried = time.monotonic()
        try:
            async with self._store.write() as transaction:
                begun = time.monotonic()
                await self.record(transaction, events)
        except StoreError as error:
            _log.warning("Events of the job wait for the database: %s", error)
            self._buffer.put_back(events)
        else:
            self._renewed = begun


def _unreached() -> FencedOffError:
    return FencedOffError("The database has not been reached for as long as the lease lasts.")
