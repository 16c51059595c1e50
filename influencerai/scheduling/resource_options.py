"""Resource options: what a configuration needs of a node as configured, and with less memory.

Each option gives the same effective batch: gradient checkpointing computes activations twice instead of keeping
them, and micro-batches are accumulated to one step. Both change a run by rounding alone, and both make it slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from influencerai.domain import LoraConfig
from influencerai.scheduling.placement import ResourceRequest
from influencerai.training_plan.execution import DeviceKind
from influencerai.training_plan.resources import estimate_memory

_MARGIN = 1.1
"""Over an estimate that was not measured."""
_UNKNOWN_GB = 8.0
"""For a family without an estimate."""
_PROCESS_GB = 3.0
"""A training's process on its node, before the base model is read: torch, diffusers, images."""
_GPU_CPUS = 2.0


@dataclass(frozen=True, kw_only=True)
class ResourceOption:
    """One way to train a configuration, and what it requests of a node."""

    request: ResourceRequest
    micro_batch: int
    gradient_checkpointing: bool

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "needs": asdict(self.request),
            "micro_batch": self.micro_batch,
            "gradient_checkpointing": self.gradient_checkpointing,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `to_document`."""
        return cls(
            request=ResourceRequest(**document["needs"]),
            micro_batch=document["micro_batch"],
            gradient_checkpointing=document["gradient_checkpointing"],
        )


def describe_option(config: LoraConfig, *, micro_batch: int, gradient_checkpointing: bool) -> str | None:
    """How an option differs from the configuration, as a sentence; None if it does not."""
    changes = []
    if gradient_checkpointing and not config.options.gradient_checkpointing:
        changes.append("with gradient checkpointing")
    if micro_batch < config.batch_size:
        changes.append(f"in micro-batches of {micro_batch}, which make up the batch of {config.batch_size}")
    return f"To fit into memory it trains {' and '.join(changes)}." if changes else None


def resource_options(
    config: LoraConfig,
    *,
    family: str,
    kind: DeviceKind,
    threads: int,
    precision: Literal["fp32", "bf16", "fp16"] = "bf16",
    denoiser_parameters: int | None = None,
    is_shared: bool = False,
    gpus: int | None = None,
    fixed: tuple[int, bool] | None = None,
) -> tuple[ResourceOption, ...]:
    """The configured option first, then options that need less memory, each less than the one before.

    `precision` is that of the device; `is_shared` lets others have the rest of a GPU; on the CPU the job holds
    `threads` cores and its memory is the node's. `gpus` share the images of each step; as configured by default.
    `fixed`, a micro-batch and whether checkpointing is used, is the only option of a run that has begun.
    """
    found: list[ResourceOption] = []
    gpus = gpus or config.options.gpus if kind == "cuda" else 1
    share = math.ceil(config.batch_size * config.options.gradient_accumulation / gpus)
    for micro_batch, checkpointing in _variants(config) if fixed is None else [fixed]:
        parts = estimate_memory(
            family=family,
            resolution=config.resolution,
            micro_batch=min(micro_batch, share),
            precision=precision,
            gradient_checkpointing=checkpointing,
            rank=config.network_dim,
            targets=config.options.target_modules,
            optimizer=config.options.optimizer,
            ema=config.options.ema,
            train_text_encoder=config.options.train_text_encoder,
            denoiser_parameters=denoiser_parameters,
        )
        training_gb = _rounded_up(sum(parts.values()) * _MARGIN) if parts else _UNKNOWN_GB
        weights_gb = parts.get("base model", _UNKNOWN_GB)
        if kind == "cpu":
            request = ResourceRequest(cpus=threads, memory_gb=_rounded_up(_PROCESS_GB + training_gb))
        else:
            request = ResourceRequest(
                cpus=_GPU_CPUS * gpus,
                memory_gb=_rounded_up((_PROCESS_GB + weights_gb) * gpus),
                devices=gpus,
                device_gb=training_gb,
                is_shared=is_shared and gpus == 1,
            )
        if not found or _memory(request) < _memory(found[-1].request):
            found.append(ResourceOption(request=request, micro_batch=micro_batch, gradient_checkpointing=checkpointing))
    return tuple(found)


def _rounded_up(gb: float) -> float:
    """To halves: an estimate is no finer, and few different requests are decided faster than many."""
    return math.ceil(gb * 2) / 2


def _variants(config: LoraConfig) -> Iterator[tuple[int, bool]]:
    """(Micro-batch, checkpointing): checkpointing first, whose price is paid once, then smaller batches."""
    micro_batch = config.batch_size
    yield micro_batch, config.options.gradient_checkpointing
    while True:
        yield micro_batch, True
        if micro_batch == 1:
            return
        micro_batch = (micro_batch + 1) // 2


def _memory(request: ResourceRequest) -> float:
    return request.device_gb if request.devices else request.memory_gb
