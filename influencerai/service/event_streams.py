"""Event streams: what happens to jobs, as it happens. One poller feeds all streams of a process."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from influencerai.domain.job import TERMINAL
from influencerai.domain.job_log import JobEvent
from influencerai.errors import InfluencerAIError, TooManyError
from influencerai.service.job_log import event_of
from influencerai.service.jobs import not_found
from influencerai.store import Store
from influencerai.store.fair_slots import OURS, acting_for

_PAGE = 500
_LONGEST_QUEUE = 2000
"""Events that a slow reader may lag behind; then its stream ends, and it comes back with the last number it saw."""
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Reader:
    events: asyncio.Queue[JobEvent | None] = field(default_factory=asyncio.Queue)
    is_ended: bool = False

    def give(self, event: JobEvent | None) -> None:
        """Hand on an event, or with None the end, after which nothing follows; a reader that lags too far is ended."""
        if self.is_ended:
            return
        self.is_ended = event is None or self.events.qsize() >= _LONGEST_QUEUE
        self.events.put_nowait(None if self.is_ended else event)


@dataclass(eq=False)
class _Topic:
    """A job that somebody follows: the last event that its readers were given."""

    seq: int
    readers: set[_Reader] = field(default_factory=set)


class EventStreams:
    """Streams of jobs' events."""

    def __init__(self, store: Store, *, poll_seconds: float, per_tenant: int) -> None:
        self._store = store
        self._per_tenant = per_tenant
        self._open: Counter[str] = Counter()
        self._poll_seconds = poll_seconds
        self._topics: dict[str, _Topic] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def open_streams(self) -> int:
        """How many streams are read now."""
        return sum(len(topic.readers) for topic in self._topics.values())

    def check_room(self, tenant: str) -> None:
        """Refuse one more stream of a tenant that has as many as it may have: each holds a connection.

        Raises:
            TooManyError: it has.
        """
        if self._open[tenant] >= self._per_tenant:
            raise TooManyError(
                f"There are {self._per_tenant} open event streams, which is the limit",
                remedy="Close one, or read events in pages.",
                retry_after=5,
            )

    async def follow(self, tenant: str, id: str, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """Events of a job from number `after` on, until it has ended, is deleted, or the server stops.

        Raises:
            NotFoundError: there is no such job.
        """
        async with self._store.read() as transaction:
            if await transaction.jobs.get(tenant, id) is None:
                raise not_found(id)
            last, status = (await transaction.events.last_numbers([id]))[id]
        if self._open[tenant] >= self._per_tenant:
            return  # many came at once: the others were counted first
        with self._counted(tenant), self._reading(id, last) as (reader, given):
            async for event in self._replay(id, after=after, until=max(last, given)):
                yield event
                after = event.seq
                if _ends(event):
                    return
            while not self._closed and status not in TERMINAL:
                event_or_end = await reader.events.get()
                if event_or_end is None:
                    return
                if event_or_end.seq > after:
                    yield event_or_end
                    after = event_or_end.seq
                if _ends(event_or_end):
                    return

    async def close(self) -> None:
        """End every stream, and start no more."""
        self._closed = True
        for topic in self._topics.values():
            for reader in topic.readers:
                reader.give(None)
        if self._poller:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    @contextmanager
    def _counted(self, tenant: str) -> Iterator[None]:
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    @contextmanager
    def _reading(self, id: str, last: int) -> Iterator[tuple[_Reader, int]]:
        """A reader of all events from now on, and the number of the last one before them."""
        reader = _Reader()
        topic = self._topics.setdefault(id, _Topic(seq=last))
        topic.readers.add(reader)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield reader, topic.seq
        finally:
            topic.readers.discard(reader)
            if not topic.readers:
                self._topics.pop(id, None)

    async def _replay(self, id: str, *, after: int, until: int) -> AsyncIterator[JobEvent]:
        while after < until and not self._closed:
            async with self._store.read() as transaction:
                page = await transaction.events.after(id, after, limit=_PAGE)
            if not page:
                return
            for event in page:
                yield event_of(event)
            after = page[-1].seq

    async def _poll(self) -> None:
        """Ask for news of all jobs at once, while there are readers."""
        while self._topics and not self._closed:
            try:
                with acting_for(OURS):  # not for the tenant whose stream was the first
                    await self._look()
            except InfluencerAIError as error:
                _log.warning("Event streams wait for the database: %s", error)
            except Exception:
                _log.exception("The news of jobs could not be read.")
            await asyncio.sleep(self._poll_seconds)

    async def _look(self) -> None:
        followed = dict(self._topics)
        async with self._store.read() as transaction:
            numbers = await transaction.events.last_numbers(list(followed))
            news = {
                id: await transaction.events.after(id, topic.seq, limit=_PAGE)
                for id, topic in followed.items()
                if id in numbers and numbers[id][0] > topic.seq
            }
        for id, topic in followed.items():
            if id not in numbers:
                _give(topic, None)
            for stored in news.get(id, ()):
                topic.seq = stored.seq
                _give(topic, event_of(stored))


def _give(topic: _Topic, event: JobEvent | None) -> None:
    for reader in topic.readers:
        reader.give(event)


def _ends(event: JobEvent) -> bool:
    return event.type == "status" and event.data.get("status") in TERMINAL
