"""How a device would execute a training."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from influencerai.domain import LoraConfig
from influencerai.training_plan import DeviceFacts, execution_plan
from influencerai.training_plan.execution import execution_warnings

OLD_CPU = DeviceFacts(kind="cpu", name="an old CPU", has_bf16=False, build="torch 2")
CPU = DeviceFacts(kind="cpu", name="a CPU", has_bf16=True, build="torch 2")
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
        (OLD_CPU, "auto", "fp32", None),
        (OLD_CPU, "bf16", "bf16", "about 19 times as long as in fp32"),
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


def test_as_many_devices_as_were_asked_for_make_up_one_plan() -> None:
    plan, warnings = execution_plan(make_config(gpus=3), GPU, threads=1, world_size=3)
    assert (plan.world_size, plan.micro_batch, warnings) == (3, 3, [])


@pytest.mark.parametrize(
    ("asked", "there", "accumulation", "sentences"),
    [
        (2, 1, 1, ["gpus is 2, but the run trains on one device"]),
        (3, 2, 1, ["gpus is 3, but the run trains on 2 devices"]),
        (4, 4, 1, ["gpus is 4, but a step has 3 images at most"]),
        (4, 1, 1, ["gpus is 4, but a step has 3 images at most", "gpus is 4, but the run trains on one device"]),
        (4, 4, 2, []),
    ],
)
def test_devices_that_are_missing_or_idle_are_told_of(
    asked: int, there: int, accumulation: int, sentences: list[str]
) -> None:
    config = make_config(gpus=asked, gradientAccumulation=accumulation)
    plan, warnings = execution_plan(config, GPU, threads=1, world_size=there)
    assert plan.world_size == there
    assert [warning[: len(sentence)] for warning, sentence in zip(warnings, sentences, strict=True)] == sentences


def test_what_goes_on_elsewhere_is_told_of() -> None:
    plan, _ = execution_plan(make_config(), GPU, threads=1, world_size=2)
    assert execution_warnings(plan, [GPU, GPU]) == []
    assert execution_warnings(plan, [OLD_GPU]) == [
        "The run was started with a GPU and goes on with an old GPU: its last bits may differ.",
        "The run was started with worldSize 2 and goes on with worldSize 1: its last bits may differ.",
    ]
    assert execution_warnings(plan.model_copy(update={"world_size": 3}), [GPU, OLD_GPU, OLD_GPU]) == [
        "Beside a GPU there trains an old GPU: their weights may differ in the last bits.",
    ]


def test_fewer_cores_than_threads_are_said() -> None:
    plan, _ = execution_plan(make_config(), CPU, threads=2)
    assert execution_warnings(plan, [CPU], cores=2) == []
    [text] = execution_warnings(plan, [CPU], cores=1)
    assert "with 2 threads and goes on with them on 1 core" in text
