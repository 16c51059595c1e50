"""View: where a demo reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from influencerai.domain.job_log import JobEvent

OnEvent = Callable[[str, JobEvent], None]
"""Called with a character and an event of its job."""


class DemoView(Protocol):
    """Shows what a demo is doing."""

    def starting(self, log: Path) -> None:
        """The server starts and writes its log to this file."""

    def ready(self, url: str) -> None:
        """The server accepts jobs at this address."""

    def training(self) -> AbstractContextManager[OnEvent]:
        """The jobs run inside this block; it yields the function that gets their events."""

    def stopping(self) -> None:
        """The server is asked to stop."""

    def drawing(self, text: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Images are drawn inside this block; it yields the function that gets how many are done, of how many."""
