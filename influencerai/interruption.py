"""Interruption: signals end long work so that it can be continued later.

Two kinds of work end differently. A training (`Interruption`) stops at its next step and saves its state. All other
work (`EndedBySignal`) gets a KeyboardInterrupt.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from influencerai.errors import StoppedError

if TYPE_CHECKING:
    from influencerai.domain import Event

SIGNALS = (signal.SIGINT, signal.SIGTERM)
T = TypeVar("T")
_SECONDS_BETWEEN_CANCELLATIONS = 1.0


class InterruptedRun(Exception):  # noqa: N818 - the user asked for it, it is not an error
    """A signal ended the command.

    Args:
        message: what became of the work.
        signal_number: of the signal.
        continued_by: the command that continues the work: `--resume` (this one with that option), `repetition` (this
            one again), or None where there is nothing to continue.
    """

    def __init__(
        self, message: str, *, signal_number: int, continued_by: Literal["--resume", "repetition"] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.signal_number = signal_number
        self.continued_by = continued_by


class SignalReceived(KeyboardInterrupt):
    """A signal ended the work of `run_until_signal`."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does until SIGINT or SIGTERM cancels it; a second signal abandons it.

    The event loop handles the signals between two callbacks, also in a process that was started with SIGINT ignored, as
    shells start background jobs. The cancellation is repeated until the work has ended: a library that raises an error
    of its own while it closes a connection would otherwise replace the only one, and the work would never end.

    Raises:
        SignalReceived: a signal ended the work.
    """
    import asyncio  # takes longer to import than the program needs to print its help

    received: list[signal.Signals] = []

    async def supervise() -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)

        def cancel() -> None:
            if not task.done():
                task.cancel()
                loop.call_later(_SECONDS_BETWEEN_CANCELLATIONS, cancel)

        def receive(number: signal.Signals) -> None:
            received.append(number)
            if len(received) > 1:
                raise SignalReceived(number)
            cancel()

        for number in SIGNALS:
            loop.add_signal_handler(number, receive, number)
        return await task

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return asyncio.run(supervise())
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        if not received:
            raise
        raise SignalReceived(received[-1]) from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interruption:
    """Turns signals into a request to stop while steps are trained, and into KeyboardInterrupt at other times.

    Aborting at any moment is safe, since files appear whole or not at all; stopping at a step boundary also keeps
    the steps since the last saved state.

    Args:
        announce: called, inside the signal handler, when the request is made.
        signals: the signals to handle.
    """

    def __init__(
        self, *, announce: Callable[[], None] = lambda: None, signals: Sequence[signal.Signals] = (signal.SIGINT,)
    ) -> None:
        self._announce = announce
        self._signals = signals
        self._previous: dict[signal.Signals, Any] = {}
        self.signal: signal.Signals | None = None
        """The last signal that arrived."""
        self.stage = ""
        """The stage of the run."""

    @staticmethod
    def is_possible() -> bool:
        """Whether Ctrl-C may be handled here: in the main thread, and unless another handler is installed."""
        is_main = threading.current_thread() is threading.main_thread()
        return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    @property
    def requested(self) -> bool:
        """Whether the run should end at the next step boundary."""
        return self.signal is not None

    def watch(self, event: Event) -> None:
        """Keep track of the stage of the run."""
        if event.type == "stage":
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


class InterruptedTraining(Interruption):
    """The interruption of a command that trains, which ends as `InterruptedRun`."""

    def __init__(self, *, announce: Callable[[], None]) -> None:
        super().__init__(announce=announce, signals=SIGNALS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt | StoppedError) and self.signal is not None:
            raise self._explained(error, self.signal) from error

    def _explained(self, error: BaseException, number: signal.Signals) -> InterruptedRun:
        if self.stage in ("", "checking"):
            text = "Interrupted before the run began; run the same command again."
            return InterruptedRun(text, signal_number=number)
        if isinstance(error, StoppedError):
            text = error.message
        elif self.stage == "training":
            text = "Aborted; the run continues from its last saved state."
        else:
            text = f"Interrupted while {self.stage}; what was done so far is kept."
        return InterruptedRun(text, signal_number=number, continued_by="--resume")


class EndedBySignal:
    """A block that ends with KeyboardInterrupt on any signal, and leaves as `InterruptedRun`.

    Args:
        message: what became of the work.
    """

    def __init__(self, message: str) -> None:
        self._message = message
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
        received = error.number if isinstance(error, SignalReceived) else self._signal
        if isinstance(error, KeyboardInterrupt) and received is not None:
            raise InterruptedRun(self._message, signal_number=received, continued_by="--resume") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Finish this block first: a signal takes effect at its end."""
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
