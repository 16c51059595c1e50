"""Listener: where a batch reports its progress."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from influencerai.batch.rows import BatchRow


class BatchListener(AbstractContextManager["BatchListener"], Protocol):
    """Shows the progress of a batch's trainings.

    A call reports that the row has changed. `announce_stop` is called inside a signal handler: the running training
    ends at its next step.
    """

    def __call__(self, row: BatchRow) -> None: ...

    def say(self, text: str) -> None:
        """Show a line of text that belongs to no row."""

    def announce_stop(self) -> None: ...
