"""Events: what happens to a job, followed by its stream, and by asking again and again where that is cut off."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import httpx2
from pydantic import ValidationError as PydanticError

from influencerai.client.answers import document_of, items_of, noun_of
from influencerai.client.connection import DEFAULT_TIMEOUT, Connection, segment
from influencerai.domain.job import TERMINAL, JobDetail
from influencerai.domain.job_log import JobEvent
from influencerai.errors import StoreError, TimedOutError, TooManyError, UnreachableError

T = TypeVar("T")
PAGE = 1000
SILENT_SECONDS = 45.0
"""A stream that sends not even a heartbeat for so long is dead; the server sends one every 15 seconds."""
_STREAMED_SECONDS = 20.0
"""With less time than this left, no stream is waited for: only what it sends shows that time has passed."""
_PASSING = (UnreachableError, StoreError, TooManyError)


class EventFeed:
    """The events of one job from a number on, until the job has ended.

    Whatever breaks on the way (a stream, the network, the server itself for a while), each event comes once and in
    order: the number of the last one is where the feed continues.

    Args:
        connection: to the server.
        id: of the job.
        after: events of a higher number only.
        poll_interval: seconds between two questions where there is no stream.
        patience: seconds without any answer from the server after which it is given up.
        timeout: seconds in all; None waits as long as it takes.
    """

    def __init__(
        self,
        connection: Connection,
        id: str,
        *,
        after: int = 0,
        poll_interval: float,
        patience: float,
        timeout: float | None,
    ) -> None:
        self._connection = connection
        self._id = id
        self._path = f"/jobs/{segment(id)}"
        self._after = after
        self._poll_interval = poll_interval
        self._patience = patience
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._can_stream = True
        self._has_begun = False
        self._has_ended = False

    async def __aiter__(self) -> AsyncGenerator[JobEvent, None]:
        while not self._has_ended:
            before = self._after
            if self._can_stream and self._remaining() > _STREAMED_SECONDS:
                async with aclosing(self._streamed()) as events:
                    async for event in events:
                        yield event
            if not self._has_ended:
                async for event in self._polled():
                    yield event
            if not self._has_ended and self._after == before:
                self._has_ended = (await self.job()).status in TERMINAL and not await self._is_behind()
                if not self._has_ended:
                    await self._rest()

    async def job(self) -> JobDetail:
        """The job as it is now."""
        return await self._patiently(self._job)

    async def title(self) -> str:
        """What the job trains, as its configuration is called."""
        training = (await self.job()).training
        return str((training.config if training else {}).get("name") or "training")

    async def _streamed(self) -> AsyncGenerator[JobEvent, None]:
        """What the stream sends until it ends or breaks."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store", "last-event-id": str(self._after)}
        wait = httpx2.Timeout(10.0, read=min(SILENT_SECONDS, self._remaining()))
        self._has_begun = False
        try:
            async with self._connection.open(
                f"{self._path}/events", headers=headers, timeout=wait, retries=0
            ) as response:
                if response.status_code == 204:
                    self._has_ended = True
                    return
                async for sent in self._connection.transport.events(response, tick=self._tick):
                    event = JobEvent.model_validate_json(sent.data)
                    if event.seq > self._after:
                        self._note(event)
                        yield event
                    if self._has_ended:
                        return
        except httpx2.ReadTimeout:
            self._can_stream = self._has_begun  # a proxy that holds streams back will hold the next one back too
        except UnreachableError as error:
            self._can_stream = not isinstance(error.__cause__, httpx2.ReadTimeout)
        except (httpx2.RequestError, PydanticError, _TimeIsShort, *_PASSING):
            return

    async def _polled(self) -> AsyncGenerator[JobEvent, None]:
        """What has happened by now."""
        while True:
            page = await self._patiently(self._page)
            for event in page:
                self._note(event)
                yield event
            if len(page) < PAGE or self._has_ended:
                return

    async def _page(self) -> tuple[JobEvent, ...]:
        response = await self._ask(f"{self._path}/events", after=self._after, take=PAGE)
        return tuple(noun_of(JobEvent, item, response) for item in items_of(response))

    async def _job(self) -> JobDetail:
        response = await self._ask(self._path)
        return noun_of(JobDetail, document_of(response), response)

    async def _ask(self, path: str, **params: int) -> httpx2.Response:
        """The answer of one try, which is not waited for beyond the end of all waiting."""
        timeout = httpx2.Timeout(self._remaining()) if self._remaining() < DEFAULT_TIMEOUT else None
        return await self._connection.request("GET", path, params=params, timeout=timeout, retries=0)

    async def _is_behind(self) -> bool:
        """Whether the job's end came with events that were not asked for yet."""
        return bool(await self._patiently(self._page))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The server's answer, when it is there again."""
        begun = time.monotonic()
        while True:
            self._check()
            try:
                return await ask()
            except _PASSING as error:
                self._check()
                if time.monotonic() - begun > self._patience:
                    raise
                await self._rest(at_least=(isinstance(error, TooManyError) and error.retry_after) or 0)

    async def _rest(self, *, at_least: float = 0) -> None:
        await self._connection.transport.sleep(min(max(self._poll_interval, at_least), self._remaining()))
        self._check()

    def _note(self, event: JobEvent) -> None:
        self._after = event.seq
        self._has_ended = event.type == "status" and event.data.get("status") in TERMINAL

    def _tick(self) -> None:
        self._has_begun = True
        if self._remaining() <= _STREAMED_SECONDS:
            raise _TimeIsShort

    def _remaining(self) -> float:
        return float("inf") if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _check(self) -> None:
        if self._remaining() <= 0:
            raise TimedOutError(
                f"Job {self._id} has not ended within {self._timeout:g} seconds.",
                remedy="It keeps running: wait for it again, or cancel it.",
            )


class _TimeIsShort(Exception):  # noqa: N818 - never leaves this module
    """The stream is left for questions that are timed."""
