from __future__ import annotations

from pathlib import Path

import pytest

from influencerai.cli.config_sources import (
    ConfigLayer,
    assignment_layer,
    file_layer,
    preset_layer,
    resolve_config,
)
from influencerai.errors import ValidationError

MODEL = ConfigLayer(fields={"modelName": "sd15"})


def write(folder: Path, text: str, *, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_assignments_win_over_options_over_the_file_over_the_preset(tmp_path: Path) -> None:
    file = file_layer(write(tmp_path, "epochs: 7\nbatch_size: 3\nlearningRate: 0.01\nmeta: {seed: 7, ema: true}\n"))
    options = ConfigLayer(fields={"batchSize": 5, "learningRate": 0.02, "modelName": "sd15"}, meta={"seed": 5})
    layers = [assignment_layer(["learningRate=0.03"]), options, file, preset_layer("balanced")]
    config = resolve_config(layers, default_name="me").config
    assert (config.learning_rate, config.batch_size, config.epochs, config.network_dim) == (0.03, 5, 7, 16)
    assert (config.options.seed, config.options.ema, config.options.optimizer) == (5, True, "AdamW8bit")


def test_a_name_defaults_to_the_output_folders_then_to_the_given_one() -> None:
    with_output = ConfigLayer(fields={"outputPath": "data/loras/me-v1/"})
    assert resolve_config([MODEL, with_output], default_name="set").config.name == "me-v1"
    assert resolve_config([MODEL], default_name="set").config.name == "set"
    named = ConfigLayer(fields={"name": "Me"})
    assert resolve_config([MODEL, named, with_output], default_name="set").config.name == "Me"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=3", {"seed": 3}),
        ("meta.seed=3", {"seed": 3}),
        ("min_snr_gamma=null", {"minSnrGamma": None}),
        ("meta.minSnrGamma=2.5", {"minSnrGamma": 2.5}),
        ("optimizer=Lion", {"optimizer": "Lion"}),
        ('samplePrompts=["a", "b"]', {"samplePrompts": ["a", "b"]}),
        ("triggerWord=ohwx woman=1", {"triggerWord": "ohwx woman=1"}),
        ('meta={"seed": 3, "ema": true}', {"seed": 3, "ema": True}),
        ("workflow=mine", {"workflow": "mine"}),
    ],
)
def test_an_assignment_of_meta(text: str, expected: dict[str, object]) -> None:
    assert assignment_layer([text]) == ConfigLayer(meta=expected)


@pytest.mark.parametrize("text", ["networkDim=8", "network_dim=8"])
def test_an_assignment_of_a_field(text: str) -> None:
    assert assignment_layer([text]) == ConfigLayer(fields={"networkDim": 8})


@pytest.mark.parametrize(("text", "suggestion"), [("learningrat=1", "learningRate"), ("sed=1", "seed")])
def test_a_near_miss_in_an_assignment_is_an_error_with_the_suggestion(text: str, suggestion: str) -> None:
    with pytest.raises(ValidationError, match=f"did you mean '{suggestion}'"):
        assignment_layer([text])


@pytest.mark.parametrize("text", ["seed", "=3"])
def test_an_assignment_without_key_or_value_is_an_error(text: str) -> None:
    with pytest.raises(ValidationError, match="key=value"):
        assignment_layer([text])


def test_json_and_yaml_files_in_both_spellings_are_the_same(tmp_path: Path) -> None:
    as_json = '{"modelName": "sd15", "networkDim": 8, "meta": {"minSnrGamma": null}}'
    as_yaml = "model_name: sd15\nnetwork_dim: 8\nmeta:\n  min_snr_gamma: null\n"
    assert file_layer(write(tmp_path, as_json, name="a.json")) == file_layer(write(tmp_path, as_yaml))


def test_an_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    layer = file_layer(write(tmp_path, "learningRate: 1e-4\nmeta: {weightDecay: 1e-2}\n"))
    config = resolve_config([layer, MODEL], default_name="me").config
    assert (config.learning_rate, config.options.weight_decay) == (1e-4, 1e-2)


def test_an_unknown_field_is_a_warning_and_one_of_the_server_is_nothing(tmp_path: Path) -> None:
    layer = file_layer(write(tmp_path, "id: clx4\ntenantId: demo\nauthor: me\n"))
    assert resolve_config([layer, MODEL], default_name="me").warnings == ("author is not a field and is ignored.",)


@pytest.mark.parametrize("text", ["learningrate: 0.1\n", "meta: {optimiser: Lion}\n"])
def test_a_near_miss_in_a_file_is_an_error_with_the_suggestion(tmp_path: Path, text: str) -> None:
    layers = [file_layer(write(tmp_path, text)), MODEL]
    with pytest.raises(ValidationError, match="did you mean"):
        resolve_config(layers, default_name="me")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nepochs: 4\n", "'epochs' stands twice"),
        ("meta:\n  seed: 1\n  seed: 2\n", "'seed' stands twice"),
        ("seed: 3\n", "meta.seed"),
        ("meta: 3\n", "mapping"),
        ("- 3\n", "no mapping"),
        ("", "no mapping"),
        ("epochs: [\n", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValidationError, match=message) as caught:
        file_layer(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"absent\.yaml.*No such file"):
        file_layer(tmp_path / "absent.yaml")


def test_without_a_model_the_remedy_says_how_to_name_one() -> None:
    with pytest.raises(ValidationError, match="sd15, sdxl") as caught:
        resolve_config([], default_name="me")
    assert "modelName" in caught.value.field_errors
