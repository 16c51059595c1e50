"""Rate limits: how many requests a tenant may send in a minute, by kind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from influencerai.settings import Settings

Kind = Literal["reads", "writes", "uploads"]


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What is left of a minute after this request."""

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


class RateLimits:
    """Counts of this process, by tenant and kind."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._items: dict[Kind, RateLimitItemPerMinute] = {
            "reads": RateLimitItemPerMinute(settings.reads_per_minute),
            "writes": RateLimitItemPerMinute(settings.writes_per_minute),
            "uploads": RateLimitItemPerMinute(settings.uploads_per_minute),
        }

    async def take(self, tenant: str, method: str, path: str) -> Allowance:
        """Count one request."""
        kind = _kind(method, path)
        item = self._items[kind]
        is_allowed = await self._limiter.hit(item, tenant, kind)
        window = await self._limiter.get_window_stats(item, tenant, kind)
        return Allowance(
            limit=item.amount,
            remaining=max(0, window.remaining),
            reset=int(window.reset_time) + 1,
            is_exceeded=not is_allowed,
        )


def _kind(method: str, path: str) -> Kind:
    if method in ("GET", "HEAD"):
        return "reads"
    return "uploads" if path.startswith("/datasets/") and "/images" in path else "writes"
