"""Pace: notices steps that are slow because other programs use the cores, and says so once."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from influencerai.models.waiting import spins_on

_SLOWER = 5.0
_RECENT_STEPS = 5
_LEAST_SECONDS = 2.0
"""Slow steps must take this long together: a hiccup of a short one is nobody's business."""
_BUSY_SECONDS = 20.0
_BUSY_SHARE = 0.5


class Pace:
    """Times of a run's steps on the CPU.

    Args:
        threads: of one operation.
        cores: that the process may use.
        clock: seconds of the CPU that this process has had.
        load: processes of the machine that want a core.
    """

    def __init__(
        self,
        *,
        threads: int,
        cores: int,
        clock: Callable[[], float] = time.process_time,
        load: Callable[[], float] = lambda: os.getloadavg()[0],
    ) -> None:
        self._threads = min(threads, cores)
        self._cores = cores
        self._clock = clock
        self._load = load
        self._best = float("inf")
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT_STEPS)
        self._used = clock()
        self._wall = 0.0
        self._said = False

    def add(self, seconds: float, *, images: int) -> str | None:
        """Take the time of one step; returns the warning when it is due, once in a run."""
        if self._said or not images:
            return None
        self._wall += seconds
        self._recent.append((seconds / images, seconds))
        slower = min(each for each, _ in self._recent) / self._best
        self._best = min(self._best, seconds / images)
        if len(self._recent) < _RECENT_STEPS:
            return None
        if slower >= _SLOWER and sum(seconds for _, seconds in self._recent) >= _LEAST_SECONDS:
            return self._say(f"Steps take {slower:.0f} times as long as the fastest of this run")
        if self._is_crowded():
            return self._say("Steps are slow")
        return None

    def _is_crowded(self) -> bool:
        """Whether the process gets less than half of its cores, where more want one than there are."""
        if self._wall < _BUSY_SECONDS or self._load() < self._cores + 1:
            return False
        return (self._clock() - self._used) / (self._wall * self._threads) < _BUSY_SHARE

    def _say(self, what: str) -> str:
        self._said = True
        remedy = "End them, or start a new run with INFLUENCERAI_THREADS=1."
        if spins_on():
            remedy += " Setting GOMP_SPINCOUNT=1000 before torch is imported helps as well."
        return f"{what}: other programs use the cores of this machine. {remedy}"
