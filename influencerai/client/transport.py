"""Transports: the few things that waiting and blocking clients do differently. All else is written once.

The blocking transport has the same coroutines, which never wait for a loop: `blocking.at_once` runs them to their
end by one call, in whatever thread, inside a running loop too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from httpx2 import AsyncByteStream, AsyncClient, Client, EventSource, Request, Response, ServerSentEvent, SyncByteStream

T = TypeVar("T")


class Transport(Protocol):
    """Sends requests and reads answers."""

    def build(self, method: str, url: str, **options: Any) -> Request:
        """A request, as httpx2's `build_request` makes it."""

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        """The answer; with `stream` without its body, and to be closed."""

    async def read(self, response: Response) -> None:
        """Read the body of a streamed answer."""

    def chunks(self, response: Response) -> AsyncIterator[bytes]:
        """The body of a streamed answer, as it comes."""

    def events(self, response: Response, *, tick: Callable[[], None]) -> AsyncIterator[ServerSentEvent]:
        """Server-sent events of a streamed answer; `tick` is called whenever anything has come, and may raise."""

    async def close_response(self, response: Response) -> None: ...

    async def sleep(self, seconds: float) -> None: ...

    async def aside(self, work: Callable[[], T]) -> T:
        """What `work`, which blocks, returns."""

    async def close(self) -> None: ...


class BlockingTransport:
    """Over an `httpx2.Client`."""

    def __init__(self, http: Client) -> None:
        self._http = http

    def build(self, method: str, url: str, **options: Any) -> Request:
        return self._http.build_request(method, url, **options)

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        return self._http.send(request, stream=stream)

    async def read(self, response: Response) -> None:
        response.read()

    async def chunks(self, response: Response) -> AsyncIterator[bytes]:
        for chunk in response.iter_raw():
            yield chunk

    async def events(self, response: Response, *, tick: Callable[[], None]) -> AsyncIterator[ServerSentEvent]:
        response.stream = _Ticking(response.stream, tick)
        for event in EventSource(response):
            yield event

    async def close_response(self, response: Response) -> None:
        response.close()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        return work()

    async def close(self) -> None:
        self._http.close()


class AwaitingTransport:
    """Over an `httpx2.AsyncClient`."""

    def __init__(self, http: AsyncClient) -> None:
        self._http = http

    def build(self, method: str, url: str, **options: Any) -> Request:
        return self._http.build_request(method, url, **options)

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        return await self._http.send(request, stream=stream)

    async def read(self, response: Response) -> None:
        await response.aread()

    async def chunks(self, response: Response) -> AsyncIterator[bytes]:
        async for chunk in response.aiter_raw():
            yield chunk

    async def events(self, response: Response, *, tick: Callable[[], None]) -> AsyncIterator[ServerSentEvent]:
        response.stream = _Ticking(response.stream, tick)
        async for event in EventSource(response):
            yield event

    async def close_response(self, response: Response) -> None:
        await response.aclose()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work)

    async def close(self) -> None:
        await self._http.aclose()


class _Ticking(SyncByteStream, AsyncByteStream):
    """A body that calls `tick` for every chunk, also for comments, which are no events."""

    def __init__(self, stream: Any, tick: Callable[[], None]) -> None:
        self._stream = stream
        self._tick = tick

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._tick()
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._tick()
            yield chunk

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()
