"""Rows: the status of each training of a batch, updated by the events of a trainer or of a server's job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from influencerai.domain import Event
from influencerai.domain.job_log import JobEvent
from influencerai.progress.curve import RunningMean
from influencerai.progress.progress_update import progress_update

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
    """Of the training itself, from its result."""
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

    def apply(self, event: Event | JobEvent) -> bool:
        """Apply an event of a trainer or of a server's job; returns whether the row has changed."""
        update = progress_update(event)
        if update.stage is None:
            return False
        if event.type == "status":
            self.status = "running" if update.stage == "running" else self.status
            self.stage = "queued again" if update.stage == "pending" and self.step else self.stage
            return True
        self.stage = update.stage
        if update.steps is not None and update.epochs is not None:
            self.status, self.seconds_left = "running", update.seconds_left
            (self.step, self.total_steps), (self.epoch, self.total_epochs) = update.steps, update.epochs
        if update.loss is not None:
            self.loss = self._losses.add(update.loss[1])
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
        """The row for the summary."""
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


def _number(value: Any) -> float | None:
    return value if isinstance(value, float | int) else None
