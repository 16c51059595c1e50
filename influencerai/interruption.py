"""Interruption: a signal stops a training so that it can be resumed; a second one aborts it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from influencerai.domain import Event, StageEvent


class Interruption:
    """Turns a signal into a request to stop during training steps, and into KeyboardInterrupt at other times.

    Aborting at any moment is safe, since files are written whole or not at all; stopping at a step boundary also keeps
    the steps since the last saved state.

    Args:
        announce: called in the signal handler when a stop is requested.
        signals: the signals to handle.
    """

    def __init__(
        self, *, announce: Callable[[], None] = lambda: None, signals: Sequence[signal.Signals] = (signal.SIGINT,)
    ) -> None:
        self._announce = announce
        self._signals = signals
        self._previous: dict[signal.Signals, Any] = {}
        self.signal: signal.Signals | None = None
        """The last signal received."""
        self.stage = ""
        """The stage of the run."""

    @staticmethod
    def is_possible() -> bool:
        """Whether Ctrl-C can be handled here: in the main thread, without another handler."""
        is_main = threading.current_thread() is threading.main_thread()
        return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    @property
    def requested(self) -> bool:
        """Whether the run should end at the next step boundary."""
        return self.signal is not None

    def watch(self, event: Event) -> None:
        """Keep track of the stage of the run."""
        if isinstance(event, StageEvent):
            self.stage = event.stage

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._receive) for number in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.requested
        self.signal = signal.Signals(number)
        if again or self.stage != "training":
            raise KeyboardInterrupt
        self._announce()
