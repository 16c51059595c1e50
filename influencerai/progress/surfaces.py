"""Surfaces: where a view is shown. A notebook's cell, a terminal's line, a file."""

from __future__ import annotations

import html
import io
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape

from influencerai.progress.bars import stage_progress
from influencerai.progress.curve import LossCurve, plot_loss
from influencerai.progress.text import duration, visible

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_PLOTS = 1.0
_SHOWN_PICTURES = 4
_MAX_PICTURE_BYTES = 2**21
_PLOTTING_SHARE = 0.03
"""Of the time, at most, goes into drawing plots: in a process that trains it is the trainer's."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What there is to see at a moment."""

    title: str
    curve: LossCurve
    stage: str = "waiting"
    done: int = 0
    total: int = 0
    loss: float | None = None
    """A running mean."""
    seconds_left: float | None = None
    epochs: tuple[int, int] | None = None
    """The current one, and how many there are."""
    file: str | None = None
    """Name of the newest LoRA file."""
    outcome: str | None = None
    """How the training ended, once it has."""
    pictures: tuple[str, ...] = ()
    """Paths of the newest sample pictures on this machine."""

    @property
    def text(self) -> str:
        """In one line."""
        if self.outcome:
            return visible(f"{self.title}: {self.outcome}")
        parts = [f"{self.title}: {self.stage}" + (f" {self.done}/{self.total}" if self.total else ""), *self.figures]
        return visible(", ".join(parts))

    @property
    def figures(self) -> list[str]:
        """Loss, time left and epoch, as far as they are known."""
        loss = [] if self.loss is None else [f"loss {self.loss:.4f}"]
        left = [] if self.seconds_left is None else [f"{duration(self.seconds_left)} left"]
        return loss + left + ([] if self.epochs is None else [f"epoch {self.epochs[0]}/{self.epochs[1]}"])


class Surface(Protocol):
    """Where a view is shown. What it is given may hold a stranger's texts."""

    def open(self, scene: Scene) -> None: ...

    def show(self, scene: Scene) -> None: ...

    def remark(self, text: str, *, is_warning: bool) -> None: ...

    def close(self, scene: Scene) -> None: ...


class Lines:
    """On standard error: a line when a stage begins or ends, then one every few seconds; remarks always."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown = ("", 0)
        self._last = -_SECONDS_BETWEEN_LINES

    def open(self, scene: Scene) -> None:
        pass

    def show(self, scene: Scene) -> None:
        now, place = self._clock(), (scene.stage, scene.done)
        is_over = scene.total > 0 and scene.done == scene.total
        is_due = scene.stage != self._shown[0] or is_over or now - self._last >= _SECONDS_BETWEEN_LINES
        if is_due and place != self._shown:
            self._shown, self._last = place, now
            sys.stderr.write(f"{scene.text}\n")

    def remark(self, text: str, *, is_warning: bool) -> None:
        sys.stderr.write(f"{'Warning: ' if is_warning else ''}{visible(text)}\n")

    def close(self, scene: Scene) -> None:
        if scene.outcome:
            sys.stderr.write(f"{scene.text}\n")


class Terminal:
    """A bar on standard error, remarks above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = stage_progress(console or Console(stderr=True))
        self._task = self._progress.add_task("waiting", total=None, figures="")

    def open(self, scene: Scene) -> None:
        self._progress.start()

    def show(self, scene: Scene) -> None:
        self._progress.update(
            self._task,
            description=escape(visible(f"{scene.title}: {scene.outcome or scene.stage}")),
            completed=scene.done,
            total=scene.total or None,
            figures="  ".join(scene.figures),
        )

    def remark(self, text: str, *, is_warning: bool) -> None:
        style = "yellow" if is_warning else "dim"
        self._progress.console.print(escape(visible(text)), style=style, highlight=False)

    def close(self, scene: Scene) -> None:
        self.show(scene)
        self._progress.stop()


class Notebook:
    """A loss plot in the cell that runs, with one line about where the training is; remarks below it.

    Without matplotlib the line alone.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        from IPython.display import DisplayHandle

        self._clock = clock
        self._handle: Any = DisplayHandle()
        self._next = 0.0
        self._remarks: list[str] = []

    def open(self, scene: Scene) -> None:
        self._handle.display(self._document(scene))

    def show(self, scene: Scene) -> None:
        if self._clock() >= self._next:
            self._draw(scene)

    def remark(self, text: str, *, is_warning: bool) -> None:
        self._remarks.append(f"{'Warning: ' if is_warning else ''}{visible(text)}")

    def close(self, scene: Scene) -> None:
        self._draw(scene)

    def _draw(self, scene: Scene) -> None:
        begun = self._clock()
        self._handle.update(self._document(scene))
        ended = self._clock()
        self._next = ended + max(_SECONDS_BETWEEN_PLOTS, (ended - begun) / _PLOTTING_SHARE)

    def _document(self, scene: Scene) -> Any:
        """Markup with the plot as a picture of its own, so that a saved notebook shows how it ended."""
        from IPython.display import HTML

        picture = ""
        if scene.curve.steps:
            try:
                picture = _picture(scene)
            except ModuleNotFoundError:
                picture = ""
        lines = "".join(f"<div>{html.escape(text)}</div>" for text in self._remarks)
        samples = "".join(map(_sample, scene.pictures[:_SHOWN_PICTURES]))
        return HTML(f"<div>{html.escape(scene.text)}</div>{picture}{lines}{samples}")


def _sample(path: str) -> str:
    """A sample picture as it was drawn; one that is gone or is large is left out."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return ""
    return _embedded(data, alternative=Path(path).name) if len(data) <= _MAX_PICTURE_BYTES else ""


def _picture(scene: Scene) -> str:
    file = io.BytesIO()
    plot_loss(scene.curve.steps, scene.curve.validations, title=scene.title).savefig(file, format="png", dpi=80)
    return _embedded(file.getvalue(), alternative=f"Loss of {scene.title} over its steps")


def _embedded(png: bytes, *, alternative: str) -> str:
    text = html.escape(visible(alternative), quote=True)
    return f'<img alt="{text}" src="data:image/png;base64,{b64encode(png).decode()}">'
