"""The one way to a spec: the same values give the same ids as in every version before."""

from __future__ import annotations

from typing import Any

import pytest

from influencerai.domain import LoraConfig, ModelSpec, SampleSpec
from influencerai.errors import ValidationError
from influencerai.training_plan import DeviceFacts
from influencerai.training_plan.resolve import ModelFacts, ResolvedTraining, outline, resolve

SAMPLES = (
    SampleSpec(path="01.png", sha256="1" * 64, width=640, height=480, caption="ohwx woman"),
    SampleSpec(path="2_more/02.jpg", sha256="2" * 64, width=512, height=768, caption="ohwx woman, hat", repeats=2),
    SampleSpec(path="03.webp", sha256="3" * 64, width=2048, height=700, caption="ohwx woman, beach"),
)
GPU = DeviceFacts(kind="cuda", name="NVIDIA T4", has_bf16=False, build="torch 9")
CPU = DeviceFacts(kind="cpu", name="CPU", has_bf16=False, build="torch 9")
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "defaults": ({}, "8658fbc4d7d5fd3f", "a059d81b203b7c05"),
    "batches": (
        {"epochs": 7, "batchSize": 3, "resolution": 512, "networkDim": 8, "networkAlpha": 4},
        "1046c7d73027636a",
        "a4984e3f1c6027a0",
    ),
    "chosen repeats": ({"meta": {"imagesSeen": 900}}, "e8d1b3c0639aa908", "c04dcee86064ee7c"),
    "chosen repeats and epochs": ({"epochs": None, "meta": {"imagesSeen": 5}}, "b0a4b36d9fdaea65", "ca4baa2325e2e1cb"),
    "Prodigy": (
        {"learningRate": 1, "meta": {"optimizer": "Prodigy", "trainTextEncoder": True, "seed": 11}},
        "8bf147d13d96c756",
        "2f74a5be41253ccb",
    ),
    "precision and devices": (
        {"meta": {"precision": "fp16", "gpus": 2, "gradientAccumulation": 2}},
        "ccad8507b6826116",
        "5f70cc43eeaa213b",
    ),
    "noise": (
        {"meta": {"zeroTerminalSnr": True, "predictionType": "v_prediction", "minSnrGamma": 5}},
        "6cf36a2443f66734",
        "0cfeca4653fb041a",
    ),
    "files": (
        {"outputPath": "out/my-lora.safetensors", "name": "Zoë ✨", "meta": {"fileFormat": "both"}},
        "0349c0fd496e2991",
        "12f7749a220b87ef",
    ),
    "8 bit": ({"meta": {"optimizer": "AdamW8bit"}}, "26996ef01b36415e", "5a8bd829868683c5"),
}
"""Changes of the config, and 16 digits of the spec ids (on a GPU, on a CPU) that every version must compute."""


@pytest.fixture(autouse=True)
def creation_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def config(changes: dict[str, Any]) -> LoraConfig:
    document = {"name": "me", "modelName": "sd15", "epochs": 4} | changes
    return LoraConfig.parse({key: value for key, value in document.items() if value is not None})


def resolved(changes: dict[str, Any], device: DeviceFacts) -> ResolvedTraining:
    document = config(changes)
    options = document.options
    model = ModelSpec(
        name="sd15",
        family="sd15",
        fingerprint="f" * 64,
        prediction_type=options.prediction_type or "epsilon",
        zero_terminal_snr=bool(options.zero_terminal_snr),
        side_multiple=64,
    )
    return resolve(
        document,
        SAMPLES,
        model=ModelFacts(spec=model, own_size=512, denoiser_parameters=859_520_964, warnings=("unused tensors",)),
        device=device,
        optimizer=options.optimizer,
        threads=2,
        world_size=options.gpus if device is GPU else 1,
    )


@pytest.mark.parametrize("case", CASES)
def test_ids_stay(case: str) -> None:
    changes, on_gpu, on_cpu = CASES[case]
    assert [resolved(changes, device).spec.id[:16] for device in (GPU, CPU)] == [on_gpu, on_cpu]


def test_warnings_are_of_model_options_device_and_plan() -> None:
    found = resolved({"meta": {"precision": "bf16", "optimizer": "Lion", "zeroTerminalSnr": True}}, CPU)
    assert found.warnings[0] == "unused tensors"
    for part in ("set predictionType v_prediction", "has no bf16 instructions", "16 images are seen"):
        assert any(part in text for text in found.warnings), part
    assert found.plan.total_steps == 16


def test_the_optimizer_that_is_used_stands_in_the_spec() -> None:
    document = config({"meta": {"optimizer": "AdamW8bit"}})
    model = ModelFacts(spec=resolved({}, CPU).spec.model, own_size=512, denoiser_parameters=1)
    found = resolve(document, SAMPLES, model=model, device=CPU, optimizer="AdamW", threads=1)
    assert found.spec.options.optimizer == "AdamW"
    assert found.spec.config == document


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"outputPath": "out/a\\b"}, "outputPath"), ({"meta": {"bucketStep": 1024}}, "bucketStep")],
)
def test_a_config_that_no_run_can_have(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        resolved(changes, CPU)
    assert field in str(caught.value)


def test_an_outline_needs_neither_model_nor_images() -> None:
    plan, warnings = outline(config({}), SAMPLES, family=None, device=CPU, threads=2)
    assert plan is not None
    assert plan.total_steps == 16
    assert any("images are seen in all" in text for text in warnings)
    assert outline(config({}), (), family="sd15", device=CPU, threads=2)[0] is None
