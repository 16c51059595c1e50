"""Rate limits: how many requests a tenant may send in a minute, by kind, over all servers of one database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from influencerai.errors import StoreError, TooManyError
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.fair_slots import OURS, acting_for
from influencerai.store.request_counts import WINDOW_MS

Kind = Literal["reads", "writes", "uploads"]
_PARTS = 20
"""A server takes this part of a limit from the database at once: a write for each request would cost more than it."""
_MOST_WINDOWS = 10_000
_WRONG_PER_MINUTE = 60
"""Requests without a valid credential from one address."""
_LOOK_UPS_PER_SECOND = 10
"""Keys that are looked up for addresses that have sent too many wrong ones, all together."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The requests left in this minute."""

    limit: int
    remaining: int
    reset: int
    """Unix seconds."""
    is_exceeded: bool

    @property
    def retry_after(self) -> int:
        """Seconds until the next minute begins, at least one."""
        return max(1, self.reset - int(time.time()))

    @property
    def headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset),
        }


@dataclass(kw_only=True)
class _Window:
    """A tenant's minute as this server sees it."""

    ends_at: float = 0.0
    """Unix seconds."""
    granted: int = 0
    """Requests that this server took from the database and has not let in yet."""
    untaken: int = 0
    """The requests left in the database at the last query."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimits:
    """Counts in the database, by tenant and kind; each server takes a few requests at once and hands them out."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._limits: dict[Kind, int] = {
            "reads": settings.reads_per_minute,
            "writes": settings.writes_per_minute,
            "uploads": settings.uploads_per_minute,
        }
        self._windows: OrderedDict[tuple[str, Kind], _Window] = OrderedDict()

    async def take(self, tenant: str, method: str, path: str) -> Allowance:
        """Count one request."""
        kind = _kind(method, path)
        limit = self._limits[kind]
        window = self._windows.setdefault((tenant, kind), _Window())
        self._windows.move_to_end((tenant, kind))
        while len(self._windows) > _MOST_WINDOWS:
            self._windows.popitem(last=False)
        async with window.lock:
            is_over = window.ends_at <= time.time()
            if is_over or (not window.granted and window.untaken):
                await self._refill(window, tenant, kind, limit)
            is_exceeded = not window.granted
            window.granted -= not is_exceeded
        return Allowance(
            limit=limit,
            remaining=window.untaken + window.granted,
            reset=int(window.ends_at) + 1,
            is_exceeded=is_exceeded,
        )

    async def _refill(self, window: _Window, tenant: str, kind: Kind, limit: int) -> None:
        wanted = max(1, limit // _PARTS)
        try:
            with acting_for(OURS):
                async with self._store.write() as transaction:
                    found = await transaction.request_counts.add(tenant, kind, wanted)
        except StoreError as error:  # the request will say so itself
            _log.warning("Requests are counted by this server alone: %s", error)
            if window.ends_at <= time.time():
                window.ends_at, window.untaken = time.time() + WINDOW_MS / 1000, limit
            window.granted = min(wanted, window.untaken)
            window.untaken -= window.granted
            return
        window.ends_at = time.time() + found.milliseconds_left / 1000
        window.granted = max(0, min(wanted, limit - found.before))
        window.untaken = max(0, limit - found.before - window.granted)


class WrongCredentials:
    """Counts requests without a valid credential, by the address that they come from, in this process."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._second, self._looked_up = 0, 0

    def note(self, peer: str) -> None:
        """Count one."""
        ends_at, count = self._counts.pop(peer, (0.0, 0))
        if ends_at <= time.monotonic():
            ends_at, count = time.monotonic() + WINDOW_MS / 1000, 0
        self._counts[peer] = ends_at, count + 1
        while len(self._counts) > _MOST_WINDOWS:
            self._counts.popitem(last=False)

    def check(self, peer: str) -> None:
        """Refuse an address that has sent too many.

        Raises:
            TooManyError: it has.
        """
        if left := self._seconds_left(peer):
            raise TooManyError(
                "Too many requests without a valid credential come from this address", retry_after=int(left) + 1
            )

    def check_look_up(self, peer: str) -> None:
        """Refuse the look-up of a key for an address that has sent too many, but for a few in each second.

        Many may send from one address, a proxy's, and one of them must not keep the others out.

        Raises:
            TooManyError: the few of this second are used up.
        """
        if not self._seconds_left(peer):
            return
        if (second := int(time.monotonic())) != self._second:
            self._second, self._looked_up = second, 0
        if self._looked_up >= _LOOK_UPS_PER_SECOND:
            self.check(peer)
        self._looked_up += 1

    def _seconds_left(self, peer: str) -> float:
        """For how long the address is refused from now."""
        ends_at, count = self._counts.get(peer, (0.0, 0))
        return max(0.0, ends_at - time.monotonic()) if count > _WRONG_PER_MINUTE else 0.0


def _kind(method: str, path: str) -> Kind:
    if method in ("GET", "HEAD"):
        return "reads"
    return "uploads" if path.startswith("/datasets/") and "/images" in path else "writes"
