"""The pre-flight's report, as the API serves it."""

from __future__ import annotations

from pydantic import Field

from influencerai.dataset import DatasetReport
from influencerai.domain import TrainingSpec
from influencerai.domain.wire import WireModel
from influencerai.preflight.device import AssumedDevice


class BucketUse(WireModel):
    """A size that images are trained in."""

    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    images: int = Field(description="Different images that are trained in this size.")
    least_kept: float = Field(default=1.0, description="Share that cropping leaves of the image that loses most.")
    mean_kept: float = Field(default=1.0, description="Share that cropping leaves, on average.")


class PlanSummary(WireModel):
    """What the job would do."""

    images_per_epoch: int = Field(description="Repeats counted.")
    steps_per_epoch: int
    epochs: int
    total_steps: int
    images_seen: int = Field(description="In all epochs, repeats counted.")
    save_epochs: tuple[int, ...] = Field(description="Epochs that leave a file of their own, before the final one.")
    validation_images: int = Field(description="Held out of the training.")
    buckets: tuple[BucketUse, ...] = Field(description="Widest first.")


class MemoryEstimate(WireModel):
    """Memory of the device while training."""

    gb: float | None = Field(default=None, description="Gigabytes of 1e9 bytes; absent where nothing is known.")
    parts: dict[str, float] = Field(default_factory=dict, description="Gigabytes by purpose.")
    basis: str


class TimeEstimate(WireModel):
    """Time of the training phase."""

    seconds: float | None = Field(default=None, description="Absent where nothing is known.")
    basis: str


class Preflight(WireModel):
    """Everything that can be told of a job before it runs."""

    ok: bool = Field(description="Whether nothing is known that the job would fail on.")
    errors: tuple[str, ...] = Field(default=(), description="What the job would fail on.")
    warnings: tuple[str, ...] = Field(default=(), description="What is allowed but probably not meant.")
    dataset: DatasetReport
    spec: TrainingSpec | None = Field(
        default=None, description="The run as it would be frozen, on the assumed device; absent after an error."
    )
    plan: PlanSummary | None = Field(default=None, description="Absent where no image can be used.")
    memory: MemoryEstimate
    time: TimeEstimate
    device: AssumedDevice
