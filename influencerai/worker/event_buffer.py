"""EventBuffer: events of an attempt that are not written to the database yet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from influencerai.domain import (
    CheckpointEvent,
    Event,
    SampleEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
    WarningEvent,
)
from influencerai.files.atomic_file import sha256_file
from influencerai.store.events import StepFigures
from influencerai.store.queue import PublishedFile

PROGRESS_SECONDS = 1.0
"""Shortest interval between two writes of progress."""


class EventBuffer:
    """Gathers the events, figures and files of an attempt between two writes to the database."""

    def __init__(self, *, root: Path) -> None:
        self._root = root
        self.stage = ""
        self.epoch = 0
        self.progress: dict[str, Any] | None = None
        """The progress to show, if it has changed since the last write."""
        self._events: list[tuple[str, Mapping[str, Any]]] = []
        self._figures: list[StepFigures] = []
        self._files: list[PublishedFile] = []
        self._new_stage: str | None = None
        self._is_urgent = False
        self._last = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the buffered events should be written now."""
        has_events = bool(self._events or self._figures or self._files or self.progress or self._new_stage)
        return self._is_urgent or (has_events and time.monotonic() - self._last >= PROGRESS_SECONDS)

    def note(self, event: Event) -> None:
        """Buffer one event. Hashes the pictures that it names, which blocks on the disk."""
        match event:
            case StageEvent():
                self._note_stage(event)
            case StepEvent():
                self._note_step(event)
            case ValidationEvent():
                self._events.append(("validation", _data(event)))
                figures = StepFigures(step=event.step, epoch=event.epoch, validation_loss=event.loss)
                self._figures.append(figures)
            case CheckpointEvent():
                self._events.append(("checkpoint", _data(event)))
                self._note_file(event.path, "lora", event.sha256, step=event.step, epoch=event.epoch)
                self._is_urgent = True
            case SampleEvent():
                self._events.append(("sample", _data(event)))
                for path in event.paths:
                    self._note_file(path, "sample", None, step=event.step, epoch=event.epoch)
            case WarningEvent():
                self._events.append(("warning", _data(event)))

    def take(self) -> dict[str, Any]:
        """Empty the buffer; returns its content as arguments of `Queue.record`."""
        if self.progress is not None:
            self._events.append(("progress", self.progress))
        taken = {
            "progress": self.progress,
            "stage": self._new_stage,
            "events": tuple(self._events),
            "figures": tuple(self._figures),
            "files": tuple(self._files),
        }
        self.progress, self._new_stage, self._events, self._figures, self._files = None, None, [], [], []
        self._is_urgent, self._last = False, time.monotonic()
        return taken

    def put_back(self, taken: dict[str, Any]) -> None:
        """Buffer again what could not be written, before what has happened since."""
        self._events[:0] = [event for event in taken["events"] if event[0] != "progress"]
        self._figures[:0] = taken["figures"]
        self._files[:0] = taken["files"]
        self.progress = self.progress or taken["progress"]
        self._new_stage = self._new_stage or taken["stage"]

    def _note_stage(self, event: StageEvent) -> None:
        """Keep only the last of consecutive events of one stage."""
        if self._events and self._events[-1][0] == "stage" and self._events[-1][1]["stage"] == event.stage:
            self._events.pop()
        self._events.append(("stage", _data(event)))
        if self.stage != event.stage:
            self._new_stage = event.stage
        self.stage = event.stage

    def _note_step(self, event: StepEvent) -> None:
        self.epoch = event.epoch
        self._figures.append(
            StepFigures(
                step=event.step,
                epoch=event.epoch,
                loss=event.loss,
                learning_rate=event.learning_rate,
                images_per_second=event.images_per_second,
            )
        )
        self.progress = {
            "currentEpoch": event.epoch,
            "totalEpochs": event.total_epochs,
            "loss": event.loss,
            "estimatedTimeRemaining": duration(event.seconds_remaining),
            "estimatedSecondsRemaining": round(event.seconds_remaining),
            "step": event.step,
            "totalSteps": event.total_steps,
        }

    def _note_file(self, path: str, kind: Any, sha256: str | None, *, step: int, epoch: int) -> None:
        """Buffer a published file, unless it is gone already: a run may keep only the files of its last epochs."""
        file = self._root / path
        with suppress(FileNotFoundError):
            published = PublishedFile(
                name=file.name,
                kind=kind,
                path=path,
                size=file.stat().st_size,
                sha256=sha256 or sha256_file(file),
                step=step,
                epoch=epoch,
            )
            self._files.append(published)


def duration(seconds: float) -> str:
    """Such as "45 minutes", "30 seconds" or "2 hours 5 minutes"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return _counted(whole, "second")
    minutes = round(whole / 60)
    if minutes < 60:
        return _counted(minutes, "minute")
    hours, rest = divmod(minutes, 60)
    return _counted(hours, "hour") + (f" {_counted(rest, 'minute')}" if rest else "")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _data(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.to_wire().items() if name != "type"}
