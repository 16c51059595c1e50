"""TrainingSpec: everything that decides the bytes of a run, frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.output_path import check_output_name
from influencerai.domain.training_options import PredictionType, TrainingOptions
from influencerai.domain.wire import WireModel

_HARMLESS = {
    *("config.name", "config.description", "config.isDefault", "config.meta"),
    *("config.modelName", "model.name", "config.outputPath"),
}
"""What a resumed run takes from its own spec whatever it is now.

`meta` is compared as options, the base model by its fingerprint, the output folder when the run is looked for.
"""


class ModelSpec(WireModel):
    """The base model as it was when the run was made."""

    name: str = Field(description="As the user gave it; resolved again where the run executes.")
    family: str = Field(description="Registered name of the family, such as sd15 or sdxl.")
    fingerprint: str = Field(description="SHA-256 over the weight files' hashes.")
    prediction_type: PredictionType
    zero_terminal_snr: bool
    side_multiple: int = Field(default=8, description="Pixels; every side of a training image is a multiple of it.")


class SampleSpec(WireModel):
    """One training image with its caption."""

    path: str = Field(description="Relative to the dataset folder, with forward slashes.")
    sha256: str = Field(description="Of the image file's bytes.")
    width: int = Field(gt=0, description="Pixels, after EXIF orientation.")
    height: int = Field(gt=0, description="Pixels, after EXIF orientation.")
    caption: str
    repeats: int = Field(
        default=1, ge=1, description="Times per epoch, from the folder's name; multiplied by the option."
    )


class ExecutionPlan(WireModel):
    """How a run executes: equal plans on equal hardware and builds give equal bytes."""

    device: Literal["cpu", "cuda"]
    device_name: str
    build: str = Field(description="Versions of the libraries that compute; others may round differently.")
    threads: int = Field(ge=1, description="Threads of one operation on the CPU.")
    world_size: int = Field(default=1, ge=1, description="Processes that share each batch, each with a device.")
    micro_batch: int = Field(ge=1, description="Images per forward pass of one process, at most batchSize.")
    precision: Literal["fp32", "bf16", "fp16"]
    gradient_checkpointing: bool = False
    deterministic: bool = Field(default=True, description="On a GPU: kernels that give the same bytes every time.")


class Origin(WireModel):
    """Where a run's first weights come from, where they are not those of a new adapter."""

    sha256: str = Field(description="Of the LoRA file, or of the state.")
    file: str = Field(description="Name of that file.")
    run: str | None = Field(default=None, description="Id of the run that this one continues with other epochs.")
    step: int = Field(default=0, description="Optimizer steps that count as done.")
    keeps_optimizer: bool = Field(default=False, description="Whether the optimizer's state was taken over too.")


class TrainingSpec(WireModel):
    """One run, resolved. The same spec gives the same bytes on the same hardware and build."""

    version: Literal[1] = 1
    config: LoraConfig
    options: TrainingOptions
    model: ModelSpec
    samples: tuple[SampleSpec, ...] = Field(min_length=1)
    plan: ExecutionPlan
    output_name: Annotated[str, AfterValidator(check_output_name)] = Field(
        description="Stem of the files: <name>-epoch-N.safetensors, <name>-final.safetensors."
    )
    created_at: datetime = Field(description="UTC; the only time that the files carry.")
    origin: Origin | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # so that specs without one keep their ids
        description="Absent for a run that starts with a new adapter.",
    )

    @property
    def seed(self) -> int:
        return self.options.seed

    @property
    def text_encoder_learning_rate(self) -> float:
        """As given, or half of the denoiser's; Prodigy adapts one rate for all."""
        if self.options.optimizer == "Prodigy":
            return self.config.learning_rate
        given = self.options.text_encoder_learning_rate
        return self.config.learning_rate / 2 if given is None else given

    @property
    def dataset_fingerprint(self) -> str:
        """SHA-256 over every image's hash, caption and repeats, in order."""
        return _digest([sample.to_wire() for sample in self.samples])

    @property
    def id(self) -> str:
        """SHA-256 of the whole document."""
        return _digest(self.to_wire())

    def differences(self, other: TrainingSpec) -> list[str]:
        """Wire names of what a resumed run may not change but `other` has different.

        The plan is not among them: a run goes on by its own, on whatever machine.
        """
        return list(self.changes(other))

    def changes(self, other: TrainingSpec) -> dict[str, str]:
        """The differences by their wire names, each as `then -> now`."""
        ours, theirs = self.to_wire(), other.to_wire()
        found: dict[str, str] = {}
        for part in ("config", "options", "model"):
            for name in sorted(ours[part].keys() | theirs[part].keys()):
                then, now = ours[part].get(name), theirs[part].get(name)
                if then != now and f"{part}.{name}" not in _HARMLESS:
                    found[f"{part}.{name}"] = f"{_shown(then)} -> {_shown(now)}"
        if self.dataset_fingerprint != other.dataset_fingerprint:
            found["samples"] = _changed_samples(self.samples, other.samples)
        if self.output_name != other.output_name:
            found["outputName"] = f"{self.output_name} -> {other.output_name}"
        continues = self.origin is not None and self.origin.run is not None
        if not continues and self._first_weights != other._first_weights:
            found["origin"] = f"{self._first_weights} -> {other._first_weights}"
        return found

    @property
    def _first_weights(self) -> str:
        return f"LoRA {self.origin.sha256[:8]}" if self.origin else "a new adapter"


def _shown(value: object) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _changed_samples(then: Sequence[SampleSpec], now: Sequence[SampleSpec]) -> str:
    """How many pictures came, went or changed."""
    before, after = ({sample.path: sample for sample in samples} for samples in (then, now))
    counts = {
        "added": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
        "changed": sum(before[path] != after[path] for path in before.keys() & after.keys()),
    }
    words = [f"{count} {what}" for what, count in counts.items() if count]
    return f"{', '.join(words) or 'another order'} of {len(then)} pictures and captions"


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
