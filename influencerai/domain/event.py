"""Events: what a running training tells the outside. The list of types is closed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from influencerai.domain.wire import WireModel

Stage = Literal["checking", "encoding images", "encoding captions", "loading", "training", "exporting"]


class StageEvent(WireModel):
    """A long part of the run has begun or moved on: `done` of `total` items."""

    type: Literal["stage"] = "stage"
    stage: Stage
    done: int = 0
    total: int = 0
    detail: str | None = Field(
        default=None, exclude_if=lambda value: value is None, description="What was chosen for it, in a sentence."
    )


class StepEvent(WireModel):
    """Optimizer steps are done; figures are means over the steps since the last such event."""

    type: Literal["step"] = "step"
    step: int = Field(description="Optimizer steps done so far.")
    total_steps: int
    epoch: int = Field(description="Epoch that this step belongs to, from 1.")
    total_epochs: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_remaining: float


class ValidationEvent(WireModel):
    """Validation loss on the fixed (image, timestep, noise) triples of the held-out images."""

    type: Literal["validation"] = "validation"
    step: int
    epoch: int
    loss: float


class CheckpointEvent(WireModel):
    """A LoRA file was written and verified."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    epoch: int
    path: str
    sha256: str


class SampleEvent(WireModel):
    """Pictures of the sample prompts were drawn."""

    type: Literal["sample"] = "sample"
    step: int
    epoch: int
    paths: tuple[str, ...]


class WarningEvent(WireModel):
    """Something the user should know that does not stop the run."""

    type: Literal["warning"] = "warning"
    message: str


Event = Annotated[
    StageEvent | StepEvent | ValidationEvent | CheckpointEvent | SampleEvent | WarningEvent,
    Field(discriminator="type"),
]
