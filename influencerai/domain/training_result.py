"""What a run ends with, in the shape of the contract's job results."""

from __future__ import annotations

from pydantic import Field

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
    """A failed run."""

    error: str
    code: str = Field(default="error", description="Code of the error.")
    remedy: str | None = Field(default=None, description="What to do about it.")
    epoch: int = Field(description="Epoch that the run was in, from 1; 0 before the first step.")
    partial_checkpoints: tuple[str, ...] = Field(default=(), description="File names of the last epochs, in order.")
