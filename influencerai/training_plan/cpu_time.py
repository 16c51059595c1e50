"""CPU time: how long a training takes where there is no GPU, from the operations of its UNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from influencerai.domain import ExecutionPlan
from influencerai.training_plan.resources import usual_parameters

OPERATIONS_PER_SECOND = 35e9
"""Of one thread in fp32. Measured 2026-11-30 on one core of an AMD EPYC with AVX2 and torch 2.13: SD1.5's UNet, forward
and backward at 256 pixels, 37.6e9 of those that torch's FlopCounterMode counts."""
LONG_HOURS = 12.0


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Operations (1e12) of one image, forward and backward to the adapters, as FlopCounterMode counts them."""

    resolution: int
    operations: float


_WORK: Mapping[str, _Work] = {
    "sd15": _Work(resolution=512, operations=1.73),
    "sdxl": _Work(resolution=1024, operations=14.2),
}


def cpu_seconds(
    *, family: str, resolution: int, images: int, threads: int, denoiser_parameters: int | None = None
) -> float | None:
    """Seconds that `images` take on `threads` threads, within a factor of about two; None for unknown families.

    Work grows with the number of pixels and with the UNet's parameters.
    """
    work = _WORK.get(family)
    usual = usual_parameters(family)
    if work is None or usual is None:
        return None
    scale = (resolution / work.resolution) ** 2 * (denoiser_parameters or usual) / usual
    return images * work.operations * 1e12 * scale / (OPERATIONS_PER_SECOND * max(1, threads))


def cpu_time_warnings(
    plan: ExecutionPlan, *, family: str, resolution: int, images: int, denoiser_parameters: int | None = None
) -> list[str]:
    """A warning where a training on the CPU takes longer than half a day."""
    if plan.device != "cpu":
        return []
    seconds = cpu_seconds(
        family=family,
        resolution=resolution,
        images=images,
        threads=plan.threads,
        denoiser_parameters=denoiser_parameters,
    )
    if seconds is None or seconds < LONG_HOURS * 3600:
        return []
    hours = seconds / 3600
    length = f"{hours / 24:.0f} days" if hours >= 36 else f"{hours:.0f} hours"
    threads = f"{plan.threads} CPU {'thread' if plan.threads == 1 else 'threads'}"
    text = (
        f"No GPU is used: this training takes about {length} on {threads} (an estimate). Train on a machine with a "
        "GPU, or choose a smaller base model, a lower resolution or fewer images."
    )
    return [text]
