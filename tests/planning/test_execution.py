"""How a device would execute a training."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from influencerai.domain import LoraConfig
from influencerai.planning import DeviceFacts, execution_plan

CPU = DeviceFacts(kind="cpu", name="a CPU", has_bf16=False, build="torch 2")
OLD_GPU = DeviceFacts(kind="cuda", name="an old GPU", has_bf16=False, build="torch 2, CUDA 12")
GPU = DeviceFacts(kind="cuda", name="a GPU", has_bf16=True, build="torch 2, CUDA 12")


def make_config(**meta: Any) -> LoraConfig:
    return LoraConfig(name="x", model_name="sd15", batch_size=3, meta=meta)


@pytest.mark.parametrize(
    ("facts", "asked", "used", "warning"),
    [
        (CPU, "auto", "fp32", None),
        (CPU, "fp32", "fp32", None),
        (CPU, "bf16", "bf16", None),
        (CPU, "fp16", "fp32", "fp16 cannot be trained on a CPU"),
        (OLD_GPU, "auto", "fp16", None),
        (OLD_GPU, "bf16", "bf16", "only emulates bf16"),
        (OLD_GPU, "fp16", "fp16", None),
        (GPU, "auto", "bf16", None),
        (GPU, "fp32", "fp32", None),
        (GPU, "fp16", "fp16", None),
    ],
)
def test_precision(facts: DeviceFacts, asked: str, used: Literal["fp32", "bf16", "fp16"], warning: str | None) -> None:
    plan, warnings = execution_plan(make_config(precision=asked), facts, threads=1)
    assert plan.precision == used
    assert len(warnings) == (warning is not None)
    assert all(warning in text for text in warnings if warning)


def test_the_rest_is_taken_over() -> None:
    plan, warnings = execution_plan(make_config(gradientCheckpointing=True), GPU, threads=5, deterministic=False)
    assert warnings == []
    assert plan.to_wire() == {
        "device": "cuda",
        "deviceName": "a GPU",
        "build": "torch 2, CUDA 12",
        "threads": 5,
        "worldSize": 1,
        "microBatch": 3,
        "precision": "bf16",
        "gradientCheckpointing": True,
        "deterministic": False,
    }
