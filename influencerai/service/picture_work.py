"""Picture work: inspections, uploads and thumbnails of all tenants, in threads that nothing else needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from influencerai.dataset.decoding import Decoding, KnownPictures, PixelBudget
from influencerai.service.fair_threads import Check, FairThreads
from influencerai.settings import Settings

T = TypeVar("T")
_FEWEST_THREADS, _MOST_THREADS = 4, 16
_SMALL_THREADS = 4
_LONG_WAITING, _SMALL_WAITING = 100, 500


class PictureWork:
    """Threads, and what they share. A tenant holds at most half of the threads of each kind."""

    def __init__(self, settings: Settings) -> None:
        threads = min(_MOST_THREADS, max(_FEWEST_THREADS, os.cpu_count() or 1))
        self._long = FairThreads("pictures", threads=threads, per_tenant=threads // 2, waiting=_LONG_WAITING)
        self._small = FairThreads(
            "folders", threads=_SMALL_THREADS, per_tenant=_SMALL_THREADS // 2, waiting=_SMALL_WAITING
        )
        self._budget = PixelBudget(2 * settings.max_image_pixels)
        self._known = KnownPictures()

    async def long(self, tenant: str, work: Callable[[Decoding], T]) -> T:
        """What `work` returns, which reads a whole folder or upload.

        Raises:
            TooManyError: too much of the tenant's work waits already.
        """
        return await self._long.run(tenant, lambda check: work(self._decoding(check)))

    async def small(self, tenant: str, work: Callable[[Decoding], T]) -> T:
        """The same for a list of files or one picture, which does not wait for the tenant's long work."""
        return await self._small.run(tenant, lambda check: work(self._decoding(check)))

    async def close(self) -> None:
        """Cancel all work."""
        await self._long.close()
        await self._small.close()

    def _decoding(self, check: Check) -> Decoding:
        return Decoding(budget=self._budget, known=self._known, check=check)
