"""Both clients behind one face: what a test says of the blocking client it says of the awaited one too."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from influencerai.client import AsyncInfluencerAIClient, AsyncListing, InfluencerAIClient

Kind = Literal["blocking", "awaited"]
KINDS: tuple[Kind, ...] = ("blocking", "awaited")


@contextmanager
def opened(kind: Kind, url: str, **options: Any) -> Iterator[InfluencerAIClient]:
    """A client of the kind, to be used as a blocking one; the awaited one has a loop in another thread."""
    if kind == "blocking":
        with InfluencerAIClient(url, **options) as client:
            yield client
        return
    with start_blocking_portal() as portal:
        awaited = AsyncInfluencerAIClient(url, **options)
        try:
            yield cast(InfluencerAIClient, _Awaited(awaited, portal))
        finally:
            portal.call(awaited.close)


class _Awaited:
    """Attributes of an awaited object; what must be awaited or iterated there is done by the portal."""

    def __init__(self, inner: Any, portal: BlockingPortal) -> None:
        self._inner = inner
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if isinstance(found, Awaitable):
            return self._wait(lambda: found)
        return self._method(found) if callable(found) else _Awaited(found, self._portal)

    def __iter__(self) -> Iterator[Any]:
        return self._iterated(self._inner.__aiter__())

    def _method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            if isinstance(found, AsyncGenerator):
                return self._iterated(found)
            return _Awaited(found, self._portal) if isinstance(found, AsyncListing) else self._wait(lambda: found)

        return call

    def _wait(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await ask()

        return self._portal.call(run)

    def _iterated(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._wait(lambda: anext(items))
                except StopAsyncIteration:
                    return
        finally:
            self._wait(items.aclose)
