"""Results of a run, in the shape of the contract's job results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from pydantic import Field

from influencerai.domain.problem import Problem
from influencerai.domain.wire import WireModel


class TrainingResult(WireModel):
    """A completed run."""

    lora_path: str = Field(description="The final file, relative to the root where it lies under it.")
    checkpoints: tuple[str, ...] = Field(description="File names in order of training, the final one last.")
    final_loss: float = Field(description="Mean loss of the last epoch.")
    training_time_minutes: float
    validation_loss: float | None = None
    images_seen: int | None = Field(
        default=None, description="Images that the training showed in all, repeats counted."
    )
    learned: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="False where the final file changes nothing; absent otherwise.",
    )
    warnings: tuple[str, ...] = ()


class TrainingFailure(WireModel):
    """A failed or cancelled run: the contract's result of a failed job."""

    error: str
    code: str = Field(default="error", description="Code of the error.")
    remedy: str | None = Field(default=None, description="What to do about it.")
    epoch: int = Field(description="Epoch that the run was in, from 1; 0 before the first step.")
    partial_checkpoints: tuple[str, ...] = Field(default=(), description="File names of the last epochs, in order.")
    cancelled: bool = Field(
        default=False, exclude_if=lambda value: not value, description="True where a user asked for the end."
    )

    @classmethod
    def of(
        cls, problem: Problem, *, epoch: int = 0, partial_checkpoints: Iterable[str] = (), cancelled: bool = False
    ) -> Self:
        """The failure that `problem` is, with what the run has left."""
        return cls(
            error=problem.message,
            code=problem.code,
            remedy=problem.remedy,
            epoch=epoch,
            partial_checkpoints=tuple(partial_checkpoints),
            cancelled=cancelled,
        )

    @property
    def problem(self) -> Problem:
        """The failure without what the run has left."""
        return Problem(self.error, self.code, self.remedy)
