"""Recorder: figures of a running training, out to its listener and down to its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from influencerai.domain import StepEvent, TrainingResult, TrainingSpec, ValidationEvent, WarningEvent
from influencerai.errors import DivergedError
from influencerai.settings import usable_cores
from influencerai.train.backend import RunContext
from influencerai.train.optimization import Optimization, StepOutcome
from influencerai.train.pace import Pace
from influencerai.train.runs.history import HISTORY_FILE, History
from influencerai.train.runs.training_state import TrainingState, list_states
from influencerai.training_plan import TrainingPlan

CUDA_STEPS_PER_READ = 10
"""Reading a loss waits for the device, so on a GPU losses are read in groups."""
FP16_INFINITE_NORMS = 25
"""Steps in a row that the gradient scaler may skip; from 65536 it is at 1 after 16."""
SECONDS_BETWEEN_STATES = 180.0
STATE_SHARE = 0.05
"""States at the end of an epoch may take at most this share of the time; the periodic ones come anyway."""


class Recorder:
    """Reads losses, watches for NaN, reports progress and decides when a state is due."""

    def __init__(self, spec: TrainingSpec, plan: TrainingPlan, context: RunContext) -> None:
        self._spec = spec
        self._plan = plan
        self._context = context
        self._pending: list[StepOutcome] = []
        self._steps_per_read = CUDA_STEPS_PER_READ if spec.plan.device == "cuda" else 1
        self._epoch_loss = (0.0, 0)
        self._last_epoch_loss = math.nan
        self._validation_loss: float | None = None
        self._infinite_norms = 0
        self._elapsed_before = 0.0
        self._save_seconds = 0.0
        self._pace = Pace(threads=spec.plan.threads, cores=usable_cores()) if spec.plan.device == "cpu" else None

    @contextmanager
    def recording(self, state: TrainingState | None) -> Iterator[None]:
        """Run the clock for a block, from the figures of the state that the run continues from."""
        self._started = self._last_save = self._last_read = time.monotonic()
        origin = self._spec.origin
        self._first_step = state.step if state else origin.step if origin else 0
        if state:
            self._elapsed_before = state.elapsed_seconds
            self._epoch_loss = state.epoch_loss
            self._last_epoch_loss = state.scalars.get("last_epoch_loss", math.nan)
            self._validation_loss = state.scalars.get("validation_loss")
        self._history = History(self._context.run_dir / HISTORY_FILE, after_step=self._first_step)
        try:
            yield
        finally:
            self._history.close()

    def add(self, outcome: StepOutcome) -> None:
        """Take one step; its figures are reported at once, on a GPU every `CUDA_STEPS_PER_READ` steps."""
        self._pending.append(outcome)
        if self._pace and (text := self._pace.add(outcome.seconds, images=outcome.images)):
            self._context.emit(WarningEvent(message=text))
        if len(self._pending) >= self._steps_per_read or outcome.step % self._plan.steps_per_epoch == 0:
            self.flush()

    def flush(self) -> None:
        """Read the losses that are still on the device.

        Raises:
            DivergedError: one of them, or a gradient, is NaN or infinite.
        """
        if not self._pending:
            return
        losses = torch.stack([outcome.loss for outcome in self._pending]).tolist()
        norms = torch.stack([outcome.grad_norm for outcome in self._pending]).tolist()
        now = time.monotonic()
        images = sum(outcome.images for outcome in self._pending)
        images_per_second = images / max(now - self._last_read, 1e-9)
        self._last_read = now
        for outcome, loss, norm in zip(self._pending, losses, norms, strict=True):
            step = outcome.step
            self._check_finite(step, loss, norm)
            self._count(step, loss)
            event = StepEvent(
                step=step,
                total_steps=self._plan.total_steps,
                epoch=(step - 1) // self._plan.steps_per_epoch + 1,
                total_epochs=self._spec.config.epochs,
                loss=loss,
                learning_rate=outcome.learning_rate,
                images_per_second=images_per_second,
                seconds_remaining=self._seconds_remaining(step, now),
            )
            self._history.append(event)
            self._context.emit(event)
        self._pending.clear()

    def validated(self, loss: float, *, step: int, epoch: int) -> None:
        self.flush()
        self._validation_loss = loss
        event = ValidationEvent(step=step, epoch=epoch, loss=loss)
        self._history.append(event)
        self._context.emit(event)

    def save_if_due(self, optimization: Optimization) -> None:
        """Save a state after epochs that export a file, after others while that is cheap, and every few minutes."""
        epoch, steps_into_epoch = divmod(optimization.step, self._plan.steps_per_epoch)
        at_epoch_end, at_save_epoch = steps_into_epoch == 0, epoch in self._plan.save_epochs
        since = time.monotonic() - self._last_save
        cheap = self._save_seconds <= STATE_SHARE * since
        if (at_epoch_end and (at_save_epoch or cheap)) or since > SECONDS_BETWEEN_STATES:
            self.save(optimization)

    def save(self, optimization: Optimization) -> None:
        """Save a state now; never one that has diverged."""
        self.flush()
        begun = time.monotonic()
        state = optimization.state(elapsed_seconds=self._elapsed(begun), epoch_loss=self._epoch_loss)
        state.scalars["last_epoch_loss"] = self._last_epoch_loss
        state.scalars["validation_loss"] = self._validation_loss
        state.save(self._context.run_dir)
        self._last_save = time.monotonic()
        self._save_seconds = self._last_save - begun

    def result(self, *, lora_path: str, checkpoints: list[str]) -> TrainingResult:
        return TrainingResult(
            lora_path=lora_path,
            checkpoints=tuple(checkpoints),
            final_loss=self._last_epoch_loss,
            training_time_minutes=round(self._elapsed(time.monotonic()) / 60, 2),
            validation_loss=self._validation_loss,
            images_seen=self._plan.total_images,
        )

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        """Infinite gradients are a matter of course at fp16, where the scale adapts to them, but not for ever."""
        self._infinite_norms = 0 if math.isfinite(norm) else self._infinite_norms + 1
        allowed = FP16_INFINITE_NORMS if self._spec.plan.precision == "fp16" else 0
        if math.isfinite(loss) and self._infinite_norms <= allowed:
            return
        states = list_states(self._context.run_dir)
        last = f"The last good state is {states[-1]}." if states else "No state was saved before."
        what = "loss" if not math.isfinite(loss) else "gradient"
        raise DivergedError(
            f"The {what} of step {step} is not a number. {last}",
            remedy=f"Lower learningRate (now {self._spec.config.learning_rate:g}) or use precision fp32.",
        )

    def _count(self, step: int, loss: float) -> None:
        total, count = self._epoch_loss
        self._epoch_loss = (total + loss, count + 1)
        if step % self._plan.steps_per_epoch == 0:
            self._last_epoch_loss = (total + loss) / (count + 1)
            self._epoch_loss = (0.0, 0)

    def _seconds_remaining(self, step: int, now: float) -> float:
        done = step - self._first_step
        return (self._plan.total_steps - step) * (now - self._started) / max(done, 1)

    def _elapsed(self, now: float) -> float:
        return self._elapsed_before + now - self._started
