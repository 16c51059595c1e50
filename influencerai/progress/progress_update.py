"""ProgressUpdate: an event of a training, here or on a server, as far as a view shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from influencerai.domain import Event, SampleEvent, StepEvent
from influencerai.domain.job_log import JobEvent
from influencerai.progress.curve import Point


@dataclass(frozen=True, kw_only=True)
class ProgressUpdate:
    """What is absent has not changed. Its texts may be a stranger's."""

    stage: str | None = None
    done: int = 0
    """Of the stage: files, optimizer steps, or epochs where a worker counts no steps."""
    total: int = 0
    steps: tuple[int, int] | None = None
    """Optimizer steps done, and how many there are."""
    epochs: tuple[int, int] | None = None
    """The current epoch, and how many there are."""
    seconds_left: float | None = None
    loss: Point | None = None
    validation: Point | None = None
    remark: str | None = None
    is_warning: bool = False
    file: str | None = None
    """Name of the LoRA file that was written."""
    pictures: tuple[str, ...] = ()
    """Paths on this machine of sample pictures that were drawn."""


def progress_update(event: Event | JobEvent) -> ProgressUpdate:
    """What is shown of an event of a `Trainer`, or of a job."""
    if isinstance(event, StepEvent):
        return ProgressUpdate(
            stage="training",
            done=event.step,
            total=event.total_steps,
            steps=(event.step, event.total_steps),
            epochs=(event.epoch, event.total_epochs),
            seconds_left=event.seconds_remaining,
            loss=(event.step, event.loss),
        )
    data = event.data if isinstance(event, JobEvent) else event.to_wire()
    match event.type:
        case "stage":
            return ProgressUpdate(
                stage=str(data.get("stage")), done=_count(data.get("done")), total=_count(data.get("total"))
            )
        case "progress":
            return _of_progress(data)
        case "validation":
            point = _point(data.get("step"), data.get("loss"))
            text = f"Epoch {data.get('epoch')}: validation loss {point[1]:.4f}" if point else None
            return ProgressUpdate(validation=point, remark=text)
        case "checkpoint":
            name = _name(data.get("path"))
            return ProgressUpdate(remark=f"Epoch {data.get('epoch')}: wrote {name}", file=name)
        case "sample":
            text = f"Epoch {data.get('epoch')}: drew {', '.join(map(_name, data.get('paths') or ()))}"
            return ProgressUpdate(remark=text, pictures=event.paths if isinstance(event, SampleEvent) else ())
        case "warning":
            return ProgressUpdate(remark=str(data.get("message")), is_warning=True)
        case "status":
            status, error = str(data.get("status")), data.get("error")
            return ProgressUpdate(stage=status, remark=f"{status}: {error}" if error else None, is_warning=bool(error))
    return ProgressUpdate()


def _of_progress(data: Mapping[str, Any]) -> ProgressUpdate:
    steps = _count(data.get("step")), _count(data.get("totalSteps"))
    epochs = _count(data.get("currentEpoch")), _count(data.get("totalEpochs"))
    done, total = steps if steps[1] else epochs
    seconds = data.get("estimatedSecondsRemaining")
    return ProgressUpdate(
        stage="training",
        done=done,
        total=total,
        steps=steps,
        epochs=epochs,
        seconds_left=seconds if isinstance(seconds, int | float) else None,
        loss=_point(done, data.get("loss")),
    )


def _point(step: object, loss: object) -> Point | None:
    return (step, float(loss)) if isinstance(step, int) and isinstance(loss, int | float) else None


def _name(path: object) -> str:
    """Of a file whose folder, here or on a server, is the training's."""
    return PurePath(str(path)).name


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
