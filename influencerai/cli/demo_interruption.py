"""Ctrl-C and the other signals that end a program, for a command that has to end what it has started before."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from influencerai.cli.interruption import SIGNALS, resume_command
from influencerai.cli.outcome import InterruptedRun


class DemoInterruption:
    """Every signal is a KeyboardInterrupt, which ends what runs on its way up and leaves as `InterruptedRun`."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._is_held = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        hangup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else set()  # not under nohup
        self._previous = {number: signal.signal(number, self._receive) for number in {*SIGNALS, *hangup}}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt) and self._signal is not None:
            text = "Interrupted; nothing of the demo runs any more, and what was trained is kept."
            raise InterruptedRun(text, signal_number=self._signal, resume_command=resume_command()) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is done here is done whole: a signal takes effect at its end."""
        before, self._is_held = self._signal, True
        try:
            yield
        finally:
            self._is_held = False
        if self._signal is not before:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
        if not self._is_held:
            raise KeyboardInterrupt
