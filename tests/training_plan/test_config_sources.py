from __future__ import annotations

import json
from pathlib import Path

import pytest

from influencerai.errors import ValidationError
from influencerai.training_plan.config_sources import (
    ConfigLayer,
    assignment_layer,
    file_layer,
    preset_layer,
    resolve_config,
)

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


@pytest.mark.parametrize("fields", [{}, {"outputPath": "loras/" + "é" * 99 + "ab"}])
def test_a_default_name_is_cut_to_what_a_name_may_have(fields: dict[str, str]) -> None:
    config = resolve_config([MODEL, ConfigLayer(fields=fields)], default_name="é" * 99 + "ab").config
    assert config.name == "é" * 99 + "a"


def test_a_default_name_of_undecodable_bytes_can_be_written() -> None:
    assert resolve_config([MODEL], default_name="me\udcff").config.name == "me?"


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
        ("learning_rate: 1\nlearningRate: 2\n", "'learning_rate' and as 'learningRate'"),
        ("meta: {min_snr_gamma: 1, minSnrGamma: 2}\n", "meta.minSnrGamma: This stands twice"),
        ("samplePrompts: [{a: 1, a: 2}]\n", "'a' stands twice"),
        ("a: &a {b: *a}\n", r"aliases \(\*name\) are not allowed"),
        ("a: &a [x]\nb: [*a, *a]\n", r"aliases \(\*name\) are not allowed"),
        ("epochs: *a\n", r"aliases \(\*name\) are not allowed"),
        ("name: 2024-13-45\n", "'2024-13-45' cannot be read as timestamp"),
        ("epochs: !!int abc\n", "'abc' cannot be read as int"),
        ("epochs: !!int ''\n", "'' cannot be read as int"),
        ("epochs: !!float x\n", "'x' cannot be read as float"),
        ("epochs: !!bool x\n", "'x' cannot be read as bool"),
        ("epochs: !!timestamp foo\n", "'foo' cannot be read as timestamp"),
        (f"epochs: {'9' * 5000}\n", "cannot be read as int"),
        (f"epochs: 0x{'f' * 5000}\n", "cannot be read as int"),
        (f"epochs: 0x{'f' * 3900}\n", "more than 4000 digits"),
        (f"epochs: 1{':1' * 500_000}\n", "cannot be read as int"),
        (f"epochs: {'[' * 3000}", "nested too deeply"),
        (f"meta: {'[' * 40}{']' * 40}\n", "nested too deeply"),
        ('name: "\\ud800"\n', "surrogate"),
        ('meta: {"\\ud800": 1}\n', "surrogate"),
        ("meta: !!binary aGk=\n", "bytes"),
        (f"# {'x' * 2**20}\n", "larger than 1 MiB"),
    ],
    ids=lambda text: text[:30],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValidationError, match=message) as caught:
        file_layer(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epochs": 3, "epochs": 4}', "'epochs' stands twice"),
        ('{"meta": {"seed": 1, "seed": 2}}', "'seed' stands twice"),
        ('{"name": "\\ud800"}', "surrogate"),
        (f'{{"epochs": {"9" * 5000}}}', "4300 digits"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=lambda text: text[:30],
)
def test_a_json_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text, name="config.json")
    with pytest.raises(ValidationError, match=message) as caught:
        file_layer(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["seed=" + "9" * 5000, "note=" + "[" * 100_000, 'note="\\ud800"', "note=\udcff", 'meta={"a": 1, "a": 2}'],
    ids=lambda text: text[:30],
)
def test_an_assignment_that_json_cannot_carry_is_named(text: str) -> None:
    with pytest.raises(ValidationError, match=f"--set '{text[:5]}.* cannot be used") as caught:
        assignment_layer([text])
    str(caught.value).encode()


@pytest.mark.slow
@pytest.mark.timeout(20)
def test_many_keys_and_long_numbers_take_little_time(tmp_path: Path) -> None:
    keys = "".join(f"key{number}: 1\n" for number in range(20_000))
    assert len(file_layer(write(tmp_path, keys)).fields) == 20_000
    digits = "1" * 1_000_000
    assert file_layer(write(tmp_path, f"name: {digits}x\n")).fields == {"name": f"{digits}x"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"absent\.yaml.*No such file"):
        file_layer(tmp_path / "absent.yaml")


def test_without_a_model_the_remedy_says_how_to_name_one() -> None:
    with pytest.raises(ValidationError, match="sd15, sdxl") as caught:
        resolve_config([], default_name="me")
    assert "modelName" in caught.value.field_errors


def test_a_missing_model_hides_no_other_error() -> None:
    layer = ConfigLayer(fields={"epochs": "many", "batchsize": 2}, meta={"sed": 1})
    with pytest.raises(ValidationError) as caught:
        resolve_config([layer], default_name="me")
    assert caught.value.field_errors.keys() == {"modelName", "epochs", "batchsize", "meta.sed"}


def test_a_near_miss_of_the_model_is_told_once() -> None:
    with pytest.raises(ValidationError) as caught:
        resolve_config([ConfigLayer(fields={"modelname": "sdxl"})], default_name="me")
    assert caught.value.field_errors == {"modelname": ["Unknown field 'modelname', did you mean 'modelName'?"]}


@pytest.mark.parametrize("suffix", [".json", ".JSON", ".yaml"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_config_file_is_read_as_any_editor_saves_it(tmp_path: Path, suffix: str, encoding: str) -> None:
    file = tmp_path / f"me{suffix}"
    file.write_bytes(json.dumps({"name": "Zoë 魔女", "modelName": "sd15"}, ensure_ascii=False).encode(encoding))
    layer = file_layer(file)
    assert (layer.fields, layer.warnings) == ({"name": "Zoë 魔女", "modelName": "sd15"}, ())


def test_a_config_file_in_windows_1252_is_read_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "me.yaml"
    file.write_bytes("name: Zoë\nmodelName: sd15\n".encode("cp1252"))
    found = resolve_config([file_layer(file)], default_name="me")
    assert found.config.name == "Zoë"
    assert found.warnings == (f"{file} is not UTF-8 and is read as Windows-1252.",)
