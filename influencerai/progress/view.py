"""View: the progress of a running training, in a notebook, a terminal or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from influencerai.domain import Event
from influencerai.domain.job_log import JobEvent
from influencerai.errors import InfluencerAIError, StoppedError
from influencerai.progress.curve import LossCurve, RunningMean
from influencerai.progress.progress_update import ProgressUpdate, progress_update
from influencerai.progress.surfaces import Lines, Notebook, Scene, Surface, Terminal
from influencerai.progress.text import visible

_LAST_STAGE: Final = "exporting"
"""Of a `Trainer`; the job of a server ends with a status."""


class LiveView:
    """Shows a running training: a loss plot in a notebook, a bar in a terminal, else a line now and then.

        with LiveView("ava") as view:
            Trainer(config, on_event=view).train("data/datasets/ava")

    It takes the events of a `Trainer` and those of a server's jobs. A failure to draw never ends a training: it is
    reported once on standard error.

    Args:
        title: what is trained.
        surface: where it is shown; by default where the program runs.
    """

    def __init__(self, title: str = "training", *, surface: Surface | None = None) -> None:
        self._surface = surface or _surface_here()
        self._scene = Scene(title=title, curve=LossCurve())
        self._loss = RunningMean()
        self._has_failed = False
        self._clock = time.monotonic
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        with self._drawing():
            self._surface.open(self._scene)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._drawing():
            self._scene = replace(self._scene, outcome=self._outcome(error))
            self._surface.close(self._scene)

    def __call__(self, event: Event | JobEvent) -> None:
        """Show an event."""
        with self._drawing():
            update = progress_update(event)
            self._scene = self._seen(update)
            if update.remark is not None:
                self._surface.remark(update.remark, is_warning=update.is_warning)
            self._surface.show(self._scene)

    def remark(self, text: str) -> None:
        """Show a line of the program that trains."""
        with self._drawing():
            self._surface.remark(text, is_warning=False)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # hours of training are worth more than their plot
            if not self._has_failed:
                self._has_failed = True
                with suppress(OSError, ValueError):
                    text = f"The view cannot be drawn, and the training continues: {type(error).__name__}: {error}"
                    sys.stderr.write(f"{visible(text)}\n")

    def _outcome(self, error: BaseException | None) -> str | None:
        """How the training ended; None where a server's job is running or has reported its own end."""
        if isinstance(error, StoppedError):
            return "stopped, and can be resumed"
        if isinstance(error, InfluencerAIError):
            return f"ended with an error: {error.message}"
        if error is not None or self._scene.stage != _LAST_STAGE:
            return None
        minutes = (time.monotonic() - self._begun) / 60
        return f"completed in {minutes:.1f} minutes" + (f": {self._scene.file}" if self._scene.file else "")

    def _seen(self, update: ProgressUpdate) -> Scene:
        scene = replace(
            self._scene, file=update.file or self._scene.file, pictures=update.pictures or self._scene.pictures
        )
        if update.validation is not None:
            scene.curve.add_validation(*update.validation)
        if update.loss is not None:
            scene.curve.add(*update.loss)
            scene = replace(scene, loss=self._loss.add(update.loss[1]))
        if update.stage is not None:
            scene = replace(
                scene,
                stage=update.stage,
                done=update.done,
                total=update.total,
                epochs=update.epochs or scene.epochs,
                seconds_left=update.seconds_left,
            )
        return scene


def _surface_here() -> Surface:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is not None:
        return Notebook()
    return Terminal() if sys.stderr.isatty() else Lines()
