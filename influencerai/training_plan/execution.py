"""Execution: how a device would run a training, from facts about it that somebody else has gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from influencerai.domain import ExecutionPlan, LoraConfig
from influencerai.domain.training_options import Optimizer, Precision

DeviceKind = Literal["cpu", "cuda"]

OPTIMIZER_MODULES: dict[Optimizer, str] = {
    "AdamW8bit": "bitsandbytes.optim",
    "Prodigy": "pytorch_optimizer",
    "Lion": "pytorch_optimizer",
    "ScheduleFreeAdamW": "pytorch_optimizer",
}
"""Modules of the optimizers that are not torch's own."""


_EMULATED_BF16: dict[DeviceKind, str] = {
    "cpu": "This CPU has no bf16 instructions (avx512_bf16, amx_bf16) and emulates them: steps took about 19 times as "
    "long as in fp32 where that was measured. Set precision to auto or fp32.",
    "cuda": "This GPU only emulates bf16, which is slow: fp16 is faster here.",
}


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """The facts of a device that decide how it executes a training."""

    kind: DeviceKind
    name: str
    has_bf16: bool
    """Whether the device computes in bf16 itself, without emulation."""
    build: str
    """Versions of the libraries that compute."""


def execution_plan(
    config: LoraConfig, facts: DeviceFacts, *, threads: int, deterministic: bool = True, world_size: int = 1
) -> tuple[ExecutionPlan, list[str]]:
    """The execution plan of `config` on `world_size` such devices, and warnings about options they do not support."""
    precision, warnings = _precision(config.options.precision, facts)
    warnings += _rank_warnings(config, world_size)
    plan = ExecutionPlan(
        device=facts.kind,
        device_name=facts.name,
        build=facts.build,
        threads=threads,
        world_size=world_size,
        micro_batch=config.batch_size,
        precision=precision,
        gradient_checkpointing=config.options.gradient_checkpointing,
        deterministic=deterministic,
    )
    return plan, warnings


def execution_warnings(plan: ExecutionPlan, devices: Sequence[DeviceFacts], *, cores: int | None = None) -> list[str]:
    """Warnings about differences in the last bits where `devices`, rank 0 first, execute a plan made on others.

    `cores` is how many of this machine's the process may use, where that is known.
    """
    first = devices[0]
    found = []
    if cores is not None and plan.device == "cpu" and cores < plan.threads:
        found.append(
            f"The run was started with {plan.threads} threads and goes on with them on {_count(cores, 'core')}: it is "
            "slower here, and its last bits may differ."
        )
    for then, now in (
        (plan.build, first.build),
        (plan.device_name, first.name),
        (f"worldSize {plan.world_size}", f"worldSize {len(devices)}"),
    ):
        if then != now:
            found.append(f"The run was started with {then} and goes on with {now}: its last bits may differ.")
    for other in devices[1:]:
        for here, there in ((first.build, other.build), (first.name, other.name)):
            if here != there:
                found.append(f"Beside {here} there trains {there}: their weights may differ in the last bits.")
    return list(dict.fromkeys(found))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _precision(asked: Precision, facts: DeviceFacts) -> tuple[Literal["fp32", "bf16", "fp16"], list[str]]:
    if asked == "auto":
        if facts.kind == "cpu":
            return "fp32", []
        return "bf16" if facts.has_bf16 else "fp16", []
    if asked == "fp16" and facts.kind == "cpu":
        return "fp32", ["fp16 cannot be trained on a CPU: the run uses fp32."]
    if asked == "bf16" and not facts.has_bf16:
        return "bf16", [_EMULATED_BF16[facts.kind]]
    return asked, []


def _rank_warnings(config: LoraConfig, world_size: int) -> list[str]:
    """Devices that were asked for and are not there, or are there for nothing."""
    asked, images = config.options.gpus, config.batch_size * config.options.gradient_accumulation
    found = []
    if asked > images:
        found.append(f"gpus is {asked}, but a step has {images} images at most: the other devices would idle.")
    if asked > world_size:
        here = "one device" if world_size == 1 else f"{world_size} devices"
        found.append(f"gpus is {asked}, but the run trains on {here}: slower, with the same result to rounding.")
    return found
