"""Progress of a training in a command: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from influencerai.domain import (
    CheckpointEvent,
    Event,
    SampleEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
    WarningEvent,
)
from influencerai.progress.bars import stage_progress
from influencerai.progress.curve import RunningMean
from influencerai.progress.text import duration, short_path, visible

STOPPING = "Stopping after this step, then saving; press Ctrl-C again to abort at once."
SECONDS_BETWEEN_LINES = 5.0


class Listener(AbstractContextManager["Listener"], Protocol):
    """Shows the events of one run. `announce_stop` reports that the run will stop at its next step."""

    def __call__(self, event: Event) -> None: ...

    def announce_stop(self) -> None: ...

    def say(self, text: str) -> None:
        """Show a text of the program itself, which is no event of the run."""


class Figures:
    """The numbers beside a bar: smoothed loss, rate, time left."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._begun = (0.0, 0)
        self._loss = RunningMean()

    def of_step(self, event: StepEvent) -> str:
        """The loss as a running mean, so that the noise of single timesteps does not hide the trend; then the rest.

        A narrow terminal cuts off the end.
        """
        return (
            f"loss {self._loss.add(event.loss):.4f}  {duration(event.seconds_remaining)} left  "
            f"{event.images_per_second:.1f} images/s  epoch {event.epoch}/{event.total_epochs}  "
            f"lr {event.learning_rate:.1e}"
        )

    def of_stage(self, event: StageEvent) -> str:
        """Rate and time left of a stage that counts."""
        unit = event.stage.rpartition(" ")[2] if " " in event.stage else "files"
        shown = self.of_count(event.stage, done=event.done, total=event.total, unit=unit)
        return "" if event.stage == "training" else shown

    def of_count(self, stage: str, *, done: int, total: int, unit: str) -> str:
        """Rate and time left of anything that counts, from the first count of its stage on."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._begun = stage, (now, done)
        begun, first = self._begun
        counted, seconds = done - first, now - begun
        if counted <= 0 or seconds <= 0:
            return ""
        rate = counted / seconds
        return f"{duration((total - done) / rate)} left  {rate:.1f} {unit}/s"


def remark(event: Event) -> str | None:
    """The line for an event that is always printed, or None."""
    match event:
        case StageEvent(detail=str(detail)):
            return detail
        case CheckpointEvent():
            return visible(f"epoch {event.epoch}: wrote {short_path(event.path)}")
        case ValidationEvent():
            return f"epoch {event.epoch}: validation loss {event.loss:.4f}"
        case SampleEvent():
            return visible(f"epoch {event.epoch}: drew {', '.join(short_path(path) for path in event.paths)}")
        case WarningEvent():
            return visible(f"Warning: {event.message}")
    return None


class Bars:
    """One bar per stage on a terminal, remarks above them."""

    def __init__(self, console: Console) -> None:
        self._figures = Figures()
        self._progress = stage_progress(console)
        self._task: TaskID | None = None
        self._stage = ""

    def __enter__(self) -> Self:
        self._progress.start()
        self._show("checking", done=0, total=0, figures="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageEvent) and not event.detail:
            figures = self._figures.of_stage(event)
            self._show(event.stage, done=event.done, total=event.total, figures=figures)
        elif isinstance(event, StepEvent):
            self._show("training", done=event.step, total=event.total_steps, figures=self._figures.of_step(event))
        elif text := remark(event):
            style = "yellow" if isinstance(event, WarningEvent) else "dim"
            self._progress.console.print(escape(text), style=style, highlight=False)

    def say(self, text: str) -> None:
        self._progress.console.print(escape(visible(text)), highlight=False)

    def announce_stop(self) -> None:
        """The refreshing thread shows it: a signal handler that prints could deadlock on the console's lock."""
        if self._task is not None:
            self._progress.tasks[-1].description = "[yellow]stopping (Ctrl-C again aborts)"

    def _show(self, stage: str, *, done: int, total: int, figures: str) -> None:
        if stage != self._stage:
            if self._task is not None:
                self._progress.update(self._task, visible=self._progress.tasks[-1].finished)
            self._stage = stage
            self._task = self._progress.add_task(stage, total=total or None, completed=done, figures=figures)
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total or None, figures=figures)


class Printed:
    """Progress that is printed line by line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, text: str) -> None:
        sys.stderr.write(f"{visible(text)}\n")

    def announce_stop(self) -> None:
        """Past the buffers of sys.stderr, which the signal may have interrupted in the middle of a write."""
        os.write(sys.stderr.fileno(), f"{STOPPING}\n".encode())


class Lines(Printed):
    """A line when a stage begins, then at most one every few seconds; remarks always."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._figures = Figures(clock=clock)
        self._shown = ("", 0, 0)
        self._last = -SECONDS_BETWEEN_LINES

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageEvent) and not event.detail:
            self._write(event.stage, event.done, event.total, self._figures.of_stage(event))
        elif isinstance(event, StepEvent):
            self._write("training", event.step, event.total_steps, self._figures.of_step(event))
        elif text := remark(event):
            sys.stderr.write(f"{text}\n")

    def count(self, stage: str, *, done: int, total: int, unit: str) -> None:
        """The same for something that is no event of a run."""
        self._write(stage, done, total, self._figures.of_count(stage, done=done, total=total, unit=unit))

    def _write(self, stage: str, done: int, total: int, figures: str) -> None:
        now = self._clock()
        finished = total > 0 and done == total
        if (stage, done, total) == self._shown:
            return
        if stage == self._shown[0] and not finished and now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._shown, self._last = (stage, done, total), now
        count = f" {done}/{total}" if total else ""
        sys.stderr.write(f"{f'{stage}{count}  {figures}'.rstrip()}\n")
