"""The frozen document of one run: it survives JSON, and its fingerprints change with what decides the bytes."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from influencerai.domain import ExecutionPlan, LoraConfig, ModelSpec, SampleSpec, TrainingSpec
from influencerai.errors import ValidationError


def make_spec(**config_fields: Any) -> TrainingSpec:
    config = LoraConfig.parse(
        {"name": "me", "modelName": "sd15", "meta": {"seed": 7, "samplePrompts": ["ohwx"]}, **config_fields}
    )
    return TrainingSpec(
        config=config,
        options=config.options,
        model=ModelSpec(
            name="sd15", family="sd15", fingerprint="f", prediction_type="epsilon", zero_terminal_snr=False
        ),
        samples=(SampleSpec(path="a/ü.png", sha256="0" * 64, width=640, height=480, caption="ohwx, lächelnd"),),
        plan=ExecutionPlan(device="cpu", device_name="cpu", build="torch", threads=2, micro_batch=1, precision="fp32"),
        output_name="me",
        created_at=datetime(2026, 11, 22, 12, 30, 0, 123000, tzinfo=UTC),
    )


def test_a_spec_survives_json() -> None:
    spec = make_spec(networkAlpha=8.5, learningRate=1)
    again = TrainingSpec.parse(json.loads(json.dumps(spec.to_wire())))
    assert again == spec
    assert again.id == spec.id
    assert again.differences(spec) == []


def test_the_id_depends_on_the_values_and_not_on_how_they_were_written() -> None:
    assert make_spec(networkAlpha=8).id == make_spec(networkAlpha=8.0).id
    assert make_spec(networkAlpha=8).id != make_spec(networkAlpha=9).id


@pytest.mark.parametrize(
    "change", [{"sha256": "1" * 64}, {"caption": "ohwx"}, {"repeats": 2}, {"path": "b.png"}, {"width": 639}]
)
def test_the_dataset_fingerprint_covers_every_sample(change: dict[str, Any]) -> None:
    spec = make_spec()
    changed = spec.model_copy(update={"samples": (spec.samples[0].model_copy(update=change),)})
    assert changed.dataset_fingerprint != spec.dataset_fingerprint
    assert changed.differences(spec) == ["samples"]


def test_differences_name_the_fields() -> None:
    spec = make_spec()
    other = make_spec(epochs=11, meta={"seed": 8, "samplePrompts": ["ohwx"]})
    slower = other.model_copy(update={"plan": other.plan.model_copy(update={"threads": 1})})
    assert spec.changes(slower) == {"config.epochs": "10 -> 11", "options.seed": "7 -> 8"}


def test_what_the_user_has_not_chosen_makes_no_difference() -> None:
    spec = make_spec()
    moved = make_spec(name="you", modelName="/elsewhere/sd15", outputPath="/elsewhere/me", description="again")
    moved = moved.model_copy(update={"model": moved.model.model_copy(update={"name": "/elsewhere/sd15"})})
    assert spec.differences(moved) == []


def test_a_spec_of_an_earlier_version_keeps_its_id() -> None:
    document = make_spec().to_wire()
    assert "origin" not in document
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert digest == "5435fae2d640dc666a56f0bd5a9ffdbbe86d7289e55189dcdc8477cdac50080c"
    assert TrainingSpec.parse(document).id == digest


def test_a_stored_spec_may_hold_what_is_a_near_miss_today() -> None:
    document = make_spec(meta={"triggerWord": "ohwx"}).to_wire()
    document["config"]["meta"]["sede"] = 1
    assert TrainingSpec.restore(document).config.meta["sede"] == 1
    with pytest.raises(ValidationError, match="did you mean 'seed'"):
        TrainingSpec.parse(document)
