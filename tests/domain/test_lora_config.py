"""The contract's training configuration: bounds, names, meta, and what comes back."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.job_snapshot import DatasetReference, JobSnapshot
from influencerai.errors import ValidationError

CONTRACT: dict[str, Any] = {
    "name": "My Influencer SDXL Balanced",
    "description": "Balanced configuration for SDXL training with 20 epochs",
    "modelName": "stabilityai/stable-diffusion-xl-base-1.0",
    "epochs": 20,
    "learningRate": 0.0001,
    "batchSize": 2,
    "resolution": 1024,
    "networkDim": 16,
    "networkAlpha": 8,
    "outputPath": "data/loras/my-influencer-v1",
    "meta": {"optimizer": "AdamW8bit", "lrScheduler": "cosine", "minSnrGamma": 5},
    "isDefault": False,
}
LEAST = {"name": "me", "modelName": "sd15"}


def errors_of(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as raised:
        LoraConfig.parse({**LEAST, **fields})
    return raised.value.field_errors


def test_the_contracts_example_comes_back_byte_for_byte() -> None:
    assert json.dumps(LoraConfig.parse(CONTRACT).to_wire()) == json.dumps(CONTRACT)


def test_the_documented_defaults() -> None:
    assert LoraConfig.parse(LEAST).to_wire() == {
        **LEAST,
        "description": None,
        "epochs": 10,
        "learningRate": 0.0001,
        "batchSize": 1,
        "resolution": 512,
        "networkDim": 32,
        "networkAlpha": 16,
        "outputPath": None,
        "meta": {},
        "isDefault": False,
    }


@pytest.mark.parametrize(
    ("field", "least", "most", "step"),
    [
        ("epochs", 1, 1000, 1),
        ("learningRate", 1e-6, 1.0, 1e-7),
        ("batchSize", 1, 64, 1),
        ("resolution", 128, 2048, 1),
        ("networkDim", 1, 512, 1),
        ("networkAlpha", 1, 512, 0.5),
    ],
)
def test_bounds_are_inclusive(field: str, least: float, most: float, step: float) -> None:
    for value in (least, most):
        assert LoraConfig.parse({**LEAST, field: value}).to_wire()[field] == value
    assert "greater than or equal to" in errors_of(**{field: least - step})[field][0]
    assert "less than or equal to" in errors_of(**{field: most + step})[field][0]


@pytest.mark.parametrize(
    ("field", "most"), [("name", 100), ("modelName", 255), ("description", 500), ("outputPath", 255)]
)
def test_texts_have_a_longest_length(field: str, most: int) -> None:
    assert LoraConfig.parse({**LEAST, field: ("x/" * most)[:most]}).to_wire()[field] == ("x/" * most)[:most]
    assert list(errors_of(**{field: ("x/" * most)[: most + 1]})) == [field]


@pytest.mark.parametrize("field", ["name", "modelName"])
def test_names_are_trimmed_and_then_measured(field: str) -> None:
    assert LoraConfig.parse({**LEAST, field: "  me \n"}).to_wire()[field] == "me"
    assert LoraConfig.parse({**LEAST, field: f" {'x' * 100} "}).to_wire()[field] == "x" * 100
    assert list(errors_of(**{field: " \t"})) == [field]


@pytest.mark.parametrize("field", ["name", "modelName"])
def test_names_that_no_database_compares_are_refused(field: str) -> None:
    assert errors_of(**{field: "a\0b"}) == {field: ["Input should hold no NUL"]}


@pytest.mark.parametrize("field", ["name", "modelName"])
def test_required_fields(field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        LoraConfig.parse({key: value for key, value in LEAST.items() if key != field})
    assert raised.value.field_errors == {field: ["Field required"]}
    assert list(errors_of(**{field: None})) == [field]


@pytest.mark.parametrize("field", ["epochs", "batchSize", "resolution", "networkDim"])
@pytest.mark.parametrize("value", [True, "128", 128.0, 128.5])
def test_integers_are_not_coerced(field: str, value: Any) -> None:
    assert list(errors_of(**{field: value})) == [field]


@pytest.mark.parametrize("field", ["learningRate", "networkAlpha"])
@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf")])
def test_numbers_are_not_coerced(field: str, value: Any) -> None:
    assert list(errors_of(**{field: value})) == [field]


@pytest.mark.parametrize(
    "path", ["a\0b", "a\nb", "a\x7f", "a\ud800", "/", ".", "a/..", ".safetensors", "a/...safetensors", "é" * 101]
)
def test_an_output_path_that_no_run_could_write_to_is_refused(path: str) -> None:
    (text,) = errors_of(outputPath=path)["outputPath"]
    assert "not allowed" in text or "1 to 200 bytes" in text


@pytest.mark.parametrize("path", ["/data/loras/me", "../me", "loras/é.safetensors", "", "x" * 200 + ".safetensors"])
def test_an_output_path_may_be_anywhere(path: str) -> None:
    assert LoraConfig.parse({**LEAST, "outputPath": path}).output_path == path


@pytest.mark.parametrize("value", [["\ud800"], {"\ud800": 1}, [10**5000], b"x", {1}])
def test_meta_holds_only_what_json_can(value: Any) -> None:
    assert list(errors_of(meta={"note": value})) == ["meta"]


def test_near_misses_stand_beside_every_other_error() -> None:
    found = errors_of(epochs="many", batchsize=2, meta={"sed": 1, "flip": "yes"})
    assert list(found) == ["batchsize", "epochs", "meta.sed", "meta.flip"]


@pytest.mark.parametrize("value", [0, 1, "true", "yes"])
def test_booleans_are_true_or_false(value: Any) -> None:
    assert list(errors_of(isDefault=value)) == ["isDefault"]


@pytest.mark.parametrize("field", ["epochs", "networkAlpha", "meta", "isDefault", "outputPath", "description"])
def test_null_takes_the_default(field: str) -> None:
    assert LoraConfig.parse({**LEAST, field: None}) == LoraConfig.parse(LEAST)


def test_fields_of_the_server_are_ignored_so_that_a_config_can_be_sent_back() -> None:
    row = {**CONTRACT, "id": "x", "tenantId": "t", "createdAt": "2025-01-15", "updatedAt": "2025-01-15"}
    assert LoraConfig.parse(row) == LoraConfig.parse(CONTRACT)
    assert LoraConfig.unknown_fields(row) == []


def test_a_near_miss_is_refused_with_the_suggestion() -> None:
    assert errors_of(learningrate=1e-4) == {
        "learningrate": ["Unknown field 'learningrate', did you mean 'learningRate'?"]
    }
    assert errors_of(meta={"minSNRgamma": 5}) == {
        "meta.minSNRgamma": ["Unknown field 'minSNRgamma', did you mean 'minSnrGamma'?"]
    }


def test_an_option_beside_meta_is_an_error_that_names_its_place() -> None:
    assert errors_of(optimizer="Prodigy", min_snr_gamma=5, optimzer="AdamW") == {
        "optimizer": ["The option 'optimizer' belongs in meta: meta.optimizer"],
        "min_snr_gamma": ["The option 'minSnrGamma' belongs in meta: meta.minSnrGamma"],
        "optimzer": ["Unknown field 'optimzer', did you mean 'meta.optimizer'?"],
    }


def test_a_field_inside_of_meta_is_warned_of_with_its_place() -> None:
    assert LoraConfig.parse({**LEAST, "meta": {"epochs": 3}}).warnings == [
        "meta.epochs is ignored: 'epochs' is a field of the configuration, beside meta."
    ]


def test_meta_comes_back_exactly_as_sent() -> None:
    meta = {"minSnrGamma": 5, "owner": {"team": [1, None, "x"]}, "optimizer": None, "note": "ünïcode"}
    config = LoraConfig.parse({**LEAST, "meta": meta})
    assert json.dumps(config.to_wire()["meta"]) == json.dumps(meta)
    assert [warning for warning in config.warnings if "meta" in warning] == [
        "meta.owner is not an option and is ignored.",
        "meta.note is not an option and is ignored.",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "adamw"),
        ("lrScheduler", "Cosine"),
        ("minSnrGamma", 0),
        ("minSnrGamma", "5"),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", True),
        ("flip", 1),
        ("flip", "true"),
        ("captionDropout", 1.1),
        ("repeats", 0),
        ("repeats", 2.0),
        ("validationSplit", 1),
        ("samplePrompts", 3),
        ("samplePrompts", [1]),
        ("gradientAccumulation", 0),
        ("precision", "fp8"),
        ("bucketStep", 4),
        ("triggerWord", 7),
    ],
)
def test_known_keys_of_meta_are_checked(name: str, value: Any) -> None:
    (field,) = errors_of(meta={name: value})
    assert field.startswith(f"meta.{name}")


def test_contradictory_bucket_sides_are_refused() -> None:
    assert errors_of(meta={"bucketMin": 512, "bucketMax": 256}) == {"meta": ["bucketMin 512 exceeds bucketMax 256"]}


def test_options_are_the_typed_view_of_meta() -> None:
    assert LoraConfig.parse(LEAST).options == TrainingOptions()
    options = LoraConfig.parse({**LEAST, "meta": {"minSnrGamma": None, "samplePrompts": ["a", "b"], "seed": 0}}).options
    assert (options.min_snr_gamma, options.sample_prompts, options.seed) == (None, ("a", "b"), 0)
    assert LoraConfig.parse({**LEAST, "meta": {"seed": None, "warmupRatio": None}}).options == TrainingOptions()


@pytest.mark.parametrize(
    ("dim", "alpha", "warned"), [(16, 16, False), (8, 16, True), (8, None, True), (16, None, False)]
)
def test_an_alpha_above_the_rank_is_remarked_on(dim: int, alpha: int | None, warned: bool) -> None:
    config = LoraConfig.parse({**LEAST, "networkDim": dim, "networkAlpha": alpha})
    assert any("networkAlpha 16 exceeds networkDim 8" in warning for warning in config.warnings) is warned


def test_options_are_parsed_once_and_follow_each_copy() -> None:
    config = LoraConfig.parse({**LEAST, "meta": {"seed": 7, "other": 1}})
    assert config.options is config.options is config.meta.options  # type: ignore[attr-defined]
    assert config.model_copy().options is config.options
    changed = config.with_option("trigger_word", "ohwx")
    assert (changed.options.trigger_word, changed.options.seed) == ("ohwx", 7)
    assert changed.options == LoraConfig.parse(changed.to_wire()).options
    assert changed.meta == {"seed": 7, "other": 1, "triggerWord": "ohwx"}
    assert config.options.trigger_word is None
    assert config.model_copy(update={"meta": {"seed": 8}}).options.seed == 8
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert again == config
        assert again.options == config.options
    assert config.model_dump_json(by_alias=True) == json.dumps(config.to_wire(), separators=(",", ":"))


def test_a_job_snapshot_is_stored_with_options_and_seed() -> None:
    config = LoraConfig.parse({**LEAST, "meta": {"seed": 7, "minSnrGamma": None}})
    snapshot = JobSnapshot(config=config, dataset=DatasetReference(id="d", path="data/me"))
    document = snapshot.to_wire()
    assert (document["seed"], document["options"]) == (7, config.options.to_wire())
    assert JobSnapshot.restore(json.loads(json.dumps(document))) == snapshot
    with pytest.raises(ValidationError) as raised:
        JobSnapshot.restore({**document, "config": {**document["config"], "epochs": 0}})
    assert list(raised.value.field_errors) == ["config.epochs"]
