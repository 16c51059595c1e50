"""Resources: a rough answer to whether a training fits, and how long it is, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from influencerai.domain import TrainingSpec
from influencerai.domain.training_options import Optimizer, TargetModules
from influencerai.training_plan.batches import TrainingPlan

GB = 1e9
RUNTIME_GB = 0.8
"""Context, workspaces and fragmentation of the device's runtime; an assumption."""

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_STATE_BYTES: dict[Optimizer, float] = {
    "AdamW": 8,
    "AdamW8bit": 2,
    "Adafactor": 0.5,
    "Prodigy": 16,
    "Lion": 4,
    "ScheduleFreeAdamW": 8,
}
"""Bytes of optimizer state per trained parameter."""


@dataclass(frozen=True, kw_only=True)
class _Footprint:
    """One family at its usual size.

    `activations` are GB that autograd keeps for one image at `resolution` in 2-byte precision: the sum of the
    distinct tensors saved by the family's UNet with rank-16 adapters and fused attention, counted on torch's
    meta device. `checkpointed` adds an estimate of the block in recomputation to the counted block inputs.
    """

    parameters: int
    text_parameters: int
    adapter_parameters_per_rank: Mapping[TargetModules, int]
    resolution: int
    activations: float
    checkpointed: float


_FOOTPRINTS = {
    "sd15": _Footprint(
        parameters=859_520_964,
        text_parameters=123_060_480,
        adapter_parameters_per_rank={"attention": 199_296, "transformer": 423_936, "all": 1_050_816},
        resolution=512,
        activations=0.93,
        checkpointed=0.4,
    ),
    "sdxl": _Footprint(
        parameters=2_567_463_684,
        text_parameters=817_720_320,
        adapter_parameters_per_rank={"attention": 1_451_520, "transformer": 2_659_840, "all": 3_074_240},
        resolution=1024,
        activations=6.75,
        checkpointed=1.5,
    ),
}


@dataclass(frozen=True, kw_only=True)
class ResourceEstimate:
    """The cost of a training. Counts are exact; memory is an estimate, absent for families without figures."""

    images_per_epoch: int
    total_images: int
    steps_per_epoch: int
    total_steps: int
    memory_gb: float | None
    memory_parts_gb: Mapping[str, float] = field(default_factory=dict)
    basis: str


def usual_parameters(family: str) -> int | None:
    """Parameters of a family's usual UNet; None where there are no figures."""
    footprint = _FOOTPRINTS.get(family)
    return footprint.parameters if footprint else None


def estimate(spec: TrainingSpec, *, denoiser_parameters: int | None = None) -> ResourceEstimate:
    """The cost of a spec; `denoiser_parameters` where the model is not of its family's usual size."""
    plan = TrainingPlan(spec)
    parts = estimate_memory(
        family=spec.model.family,
        resolution=plan.buckets.side,
        micro_batch=spec.plan.micro_batch,
        precision=spec.plan.precision,
        gradient_checkpointing=spec.plan.gradient_checkpointing,
        rank=spec.config.network_dim,
        targets=spec.options.target_modules,
        optimizer=spec.options.optimizer,
        ema=spec.options.ema,
        train_text_encoder=spec.options.train_text_encoder,
        denoiser_parameters=denoiser_parameters,
    )
    return ResourceEstimate(
        images_per_epoch=plan.images_per_epoch,
        total_images=plan.total_images,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        memory_gb=round(sum(parts.values()), 1) if parts else None,
        memory_parts_gb=parts,
        basis=_basis(spec.model.family, scaled=denoiser_parameters is not None),
    )


def estimate_memory(
    *,
    family: str,
    resolution: int,
    micro_batch: int,
    precision: str,
    gradient_checkpointing: bool = False,
    rank: int = 32,
    targets: TargetModules = "transformer",
    optimizer: Optimizer = "AdamW",
    ema: bool = False,
    train_text_encoder: bool = False,
    denoiser_parameters: int | None = None,
) -> dict[str, float]:
    """Gigabytes (1e9 bytes) by purpose while training; empty for a family without figures.

    Activations grow with the number of pixels and images: fused attention keeps no attention matrix. For a
    UNet of another size they, and the adapter, grow with its channels, the root of its parameters.
    """
    footprint = _FOOTPRINTS.get(family)
    if footprint is None:
        return {}
    bytes_ = _BYTES[precision]
    parameters = denoiser_parameters or footprint.parameters
    channels = math.sqrt(parameters / footprint.parameters)
    frozen = parameters + (footprint.text_parameters * channels**2 if train_text_encoder else 0)
    trained = footprint.adapter_parameters_per_rank[targets] * rank * channels
    per_image = footprint.checkpointed if gradient_checkpointing else footprint.activations
    pixels = (resolution / footprint.resolution) ** 2
    return {
        "base model": frozen * bytes_ / GB,
        "activations": per_image * channels * pixels * micro_batch * bytes_ / 2,
        "adapter, gradients and optimizer": trained * (8 + _STATE_BYTES[optimizer] + 4 * ema) / GB,
        "runtime": RUNTIME_GB,
    }


def _basis(family: str, *, scaled: bool) -> str:
    if family not in _FOOTPRINTS:
        return f"There are no memory figures for the family '{family}'."
    footprint = _FOOTPRINTS[family]
    text = (
        f"An estimate of the training phase, not a measurement: {footprint.parameters / GB:.2f} billion "
        f"parameters, {footprint.activations:g} GB of activations per image at {footprint.resolution} pixels in "
        f"bf16 ({footprint.checkpointed:g} GB with checkpointing), an fp32 adapter with gradients and optimizer "
        f"state, and {RUNTIME_GB:g} GB for the runtime"
    )
    return f"{text}; scaled to the model's own number of parameters." if scaled else f"{text}."
