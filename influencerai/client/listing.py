"""Listings: every item of a list of the server, page by page, while the list may change."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from influencerai.domain.page import Page

T = TypeVar("T")


class AsyncListing(Generic[T]):
    """A list that is fetched page by page while it is iterated: `async for item in listing`.

    Each item comes once. Items that are deleted on the way, by whoever iterates too, make it miss no other one;
    items that are added at the front meanwhile are not seen.
    """

    def __init__(
        self, fetch: Callable[[int, int], Awaitable[Page[T]]], *, key: Callable[[T], str], page_size: int
    ) -> None:
        self._fetch = fetch
        self._key = key
        self._page_size = page_size

    @property
    def total(self) -> Coroutine[Any, Any, int]:
        """How many items there are now: `await listing.total`."""
        return self._count()

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        seen: set[str] = set()
        skip = total = 0
        while True:
            page = await self._fetch(skip, self._page_size)
            gone, total = total - page.total, page.total
            if gone > 0 and skip > 0:  # what comes next has moved to the front by so many places at most
                skip = max(0, skip - gone)
                continue
            for item in page.items:
                if (key := self._key(item)) not in seen:
                    seen.add(key)
                    yield item
            skip += len(page.items)
            if not page.items or skip >= page.total:
                return

    async def _count(self) -> int:
        return (await self._fetch(0, 1)).total


class Listing(Generic[T]):
    """A list that is fetched page by page while it is iterated: `for item in listing`; as `AsyncListing` otherwise."""

    def __init__(self, *, iterate: Callable[[], Iterator[T]], count: Callable[[], int]) -> None:
        self._iterate = iterate
        self._count = count

    @property
    def total(self) -> int:
        """How many items there are now."""
        return self._count()

    def __iter__(self) -> Iterator[T]:
        return self._iterate()
