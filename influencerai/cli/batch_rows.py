"""Rows: how each training of a batch stands, kept up by the events of a trainer or of a server's job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from influencerai.domain import Event, StageEvent, StepEvent
from influencerai.domain.job_log import JobEvent
from influencerai.live.curve import RunningMean

RowStatus = Literal["waiting", "running", "completed", "failed", "stopped"]


@dataclass(kw_only=True)
class BatchRow:
    """One training of a batch. `stage` is what a running one does, or what a waiting one waits for."""

    name: str
    dataset: str
    status: RowStatus = "waiting"
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    total_epochs: int = 0
    loss: float | None = None
    """Running mean of the steps' losses."""
    seconds_left: float | None = None
    final_loss: float | None = None
    minutes: float | None = None
    """Of the training itself, as its result says."""
    file: str | None = None
    """The LoRA, as the result names it."""
    error: str | None = None
    is_earlier: bool = False
    """Whether an earlier call of the command ended it."""
    job_id: str | None = None
    _losses: RunningMean = field(default_factory=RunningMean, repr=False, compare=False)

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed")

    def begin(self) -> None:
        self.status, self.stage, self.error, self.is_earlier = "running", "", None, False

    def hear(self, event: Event) -> bool:
        """Take what a trainer says; whether there is something new to be seen."""
        match event:
            case StageEvent():
                self.stage = event.stage
            case StepEvent():
                self._advance(event.step, event.total_steps, event.epoch, event.total_epochs, event.loss)
                self.seconds_left = event.seconds_remaining
            case _:
                return False
        return True

    def hear_job(self, event: JobEvent) -> bool:
        """Take what a server says of the job, which may be a stranger's and hold anything."""
        data = event.data
        match event.type:
            case "stage":
                self.stage = str(data.get("stage", ""))
            case "progress":
                names = ("step", "totalSteps", "currentEpoch", "totalEpochs")
                step, steps, epoch, epochs = (int(_number(data.get(name)) or 0) for name in names)
                self._advance(step, steps, epoch, epochs, _number(data.get("loss")))
                self.seconds_left = _number(data.get("estimatedSecondsRemaining"))
            case "status":
                self.status = "running" if data.get("status") == "running" else self.status
                self.stage = "queued again" if data.get("status") == "pending" and self.step else self.stage
            case _:
                return False
        return True

    def complete(self, result: dict[str, Any], *, earlier: bool = False) -> None:
        """Take the result, in the shape of the contract's job results."""
        self.status, self.stage, self.error, self.is_earlier = "completed", "", None, earlier
        self.seconds_left = None
        self.final_loss, self.minutes = _number(result.get("finalLoss")), _number(result.get("trainingTimeMinutes"))
        self.file = str(path) if (path := result.get("loraPath")) else None

    def fail(self, error: str, *, earlier: bool = False) -> None:
        self.status, self.error, self.is_earlier, self.seconds_left = "failed", error, earlier, None

    def to_wire(self) -> dict[str, Any]:
        """The row for scripts."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "status": self.status,
            "stage": self.stage or None,
            "step": self.step,
            "totalSteps": self.total_steps,
            "epoch": self.epoch,
            "totalEpochs": self.total_epochs,
            "loss": self.loss,
            "secondsLeft": self.seconds_left,
            **self.to_report(),
        }

    def to_report(self) -> dict[str, Any]:
        """What is left to tell at the end."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "status": self.status,
            "earlier": self.is_earlier,
            "finalLoss": self.final_loss,
            "minutes": self.minutes,
            "file": self.file,
            "error": self.error,
            "jobId": self.job_id,
        }

    def _advance(self, step: int, total_steps: int, epoch: int, total_epochs: int, loss: float | None) -> None:
        self.status, self.stage = "running", "training"
        self.step, self.total_steps, self.epoch, self.total_epochs = step, total_steps, epoch, total_epochs
        if loss is not None:
            self.loss = self._losses.add(loss)


def _number(value: Any) -> float | None:
    return value if isinstance(value, float | int) else None
