"""Execution: how a device would run a training, from facts about it that somebody else has gathered."""

from __future__ import annotations

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
"""What must be importable for the optimizers that are not torch's own."""


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What decides how a device executes a training."""

    kind: DeviceKind
    name: str
    has_bf16: bool
    """Whether a GPU computes in bf16 itself, without emulation; of a CPU it is not asked."""
    build: str
    """Versions of the libraries that compute."""


def execution_plan(
    config: LoraConfig, facts: DeviceFacts, *, threads: int, deterministic: bool = True
) -> tuple[ExecutionPlan, list[str]]:
    """How that device would execute `config`, and warnings about what it cannot do as asked."""
    precision, warnings = _precision(config.options.precision, facts)
    plan = ExecutionPlan(
        device=facts.kind,
        device_name=facts.name,
        build=facts.build,
        threads=threads,
        micro_batch=config.batch_size,
        precision=precision,
        gradient_checkpointing=config.options.gradient_checkpointing,
        deterministic=deterministic,
    )
    return plan, warnings


def _precision(asked: Precision, facts: DeviceFacts) -> tuple[Literal["fp32", "bf16", "fp16"], list[str]]:
    if asked == "auto":
        if facts.kind == "cpu":
            return "fp32", []
        return "bf16" if facts.has_bf16 else "fp16", []
    if asked == "fp16" and facts.kind == "cpu":
        return "fp32", ["fp16 cannot be trained on a CPU: the run uses fp32."]
    if asked == "bf16" and facts.kind == "cuda" and not facts.has_bf16:
        return "bf16", ["This GPU only emulates bf16, which is slow: fp16 is faster here."]
    return asked, []
