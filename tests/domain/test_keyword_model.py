"""LoraConfig and TrainingOptions as people build them in Python: by keyword, in snake_case, with our own errors."""

from __future__ import annotations

import inspect
from typing import Any

import pydantic
import pytest

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.errors import ValidationError

LEAST: dict[str, Any] = {"name": "me", "model_name": "sd15"}


def errors_of(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as raised:
        LoraConfig(**fields)
    return raised.value.field_errors


@pytest.mark.parametrize(
    "fields",
    [
        {"trigger_word": "ohwx", "optimizer": "Prodigy"},
        {"options": TrainingOptions(trigger_word="ohwx", optimizer="Prodigy")},
        {"options": {"trigger_word": "ohwx", "optimizer": "Prodigy"}},
        {"meta": TrainingOptions(trigger_word="ohwx", optimizer="Prodigy")},
        {"meta": {"triggerWord": "ohwx"}, "optimizer": "Prodigy"},
    ],
)
def test_options_are_taken_in_every_form(fields: dict[str, Any]) -> None:
    config = LoraConfig(**LEAST, **fields)
    assert config.meta == {"triggerWord": "ohwx", "optimizer": "Prodigy"}
    assert config.options.trigger_word == "ohwx"


def test_unknown_keywords_are_refused_together_with_every_other_fault() -> None:
    found = errors_of(name="me", model_nam="sd15", banana=2, triger_word="x", epochs=0, optimizer="SGD")
    assert set(found) == {"model_nam", "banana", "triger_word", "epochs", "optimizer"}
    assert found["model_nam"] == ["There is no field 'model_nam', did you mean 'model_name'?"]
    assert found["triger_word"] == ["There is no field or option 'triger_word', did you mean 'trigger_word'?"]


def test_unknown_options_are_refused() -> None:
    assert set(errors_of(**LEAST, options={"banana": 2})) == {"banana"}
    with pytest.raises(ValidationError, match="trigger_word"):
        TrainingOptions(trigger_wrod="x")


def test_the_constructors_errors_are_ours() -> None:
    with pytest.raises(ValidationError) as raised:
        LoraConfig(**LEAST, learning_rate=7)
    assert not isinstance(raised.value, pydantic.ValidationError)
    assert raised.value.code == "validation"
    assert "pydantic" not in str(raised.value)


def test_a_document_with_an_unknown_name_is_refused() -> None:
    document = {"name": "me", "modelName": "sd15", "banana": 2, "epocs": 3, "optimizer": "Lion", "epochs": 0}
    with pytest.raises(ValidationError) as raised:
        LoraConfig.parse(document)
    assert set(raised.value.field_errors) == {"banana", "epocs", "optimizer", "epochs"}
    assert raised.value.field_errors["banana"] == ["There is no field 'banana'."]
    with pytest.raises(ValidationError, match="banana"):
        TrainingOptions.parse({"banana": 2})


def test_programs_that_tell_of_unknown_names_may_leave_them_out() -> None:
    document = {"name": "me", "modelName": "sd15", "banana": 2}
    assert LoraConfig.parse(document, ignore_unknown=True) == LoraConfig(**LEAST)
    assert LoraConfig.model_validate(document) == LoraConfig(**LEAST)


def test_a_preset_in_a_document_is_a_start() -> None:
    config = LoraConfig.parse({**LEAST, "preset": "fast", "epochs": 3, "meta": {"seed": 7}})
    assert config == LoraConfig.preset("fast", **LEAST, epochs=3, seed=7)
    assert (config.epochs, config.network_dim, config.options.seed) == (3, 8, 7)
    assert "imagesSeen" not in config.meta
    assert "fast, " not in str(config.warnings)
    with pytest.raises(ValidationError, match="There is no preset 'fats'"):
        LoraConfig.parse({**LEAST, "preset": "fats"})
    assert "LoraConfig.preset(" in errors_of(**LEAST, preset="fast")["preset"][0]


@pytest.mark.parametrize(
    "fields",
    [
        {"options": {"optimizer": "Lion"}, "optimizer": "AdamW"},
        {"meta": {"optimizer": "Lion"}, "optimizer": "AdamW"},
        {"meta": {"optimizer": "Lion"}, "options": TrainingOptions(optimizer="Lion")},
        {"meta": {"min_snr_gamma": 5, "minSnrGamma": 4}},
        {"options": {"min_snr_gamma": 5, "minSnrGamma": 4}},
        {"min_snr_gamma": 5, "minSnrGamma": 4},
        {"modelName": "sdxl"},
    ],
)
def test_a_value_that_is_given_twice_is_refused(fields: dict[str, Any]) -> None:
    assert len(errors_of(**LEAST, **fields)) == 1


def test_a_field_among_the_options_is_refused_with_its_place() -> None:
    assert errors_of(**LEAST, options={"epochs": 3}) == {
        "epochs": ["This is a field of the configuration, beside options"]
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: LoraConfig("me", "sd15"),  # type: ignore[call-arg]
        lambda: LoraConfig({"name": "me"}),  # type: ignore[call-arg, arg-type]
        lambda: LoraConfig(**LEAST).with_({"epochs": 3}),
        lambda: LoraConfig.preset("fast", "me"),
        lambda: TrainingOptions("AdamW"),  # type: ignore[call-arg]
    ],
)
def test_values_without_a_name_are_refused_with_the_way_to_name_them(make: Any) -> None:
    with pytest.raises(ValidationError, match=r"takes keywords alone.*Name each field: .*=\.\.\."):
        make()


@pytest.mark.parametrize("meta", [[1], "x", {1: 2}, {"a": object()}, {"a": b"x"}])
def test_options_that_json_cannot_carry_are_refused(meta: Any) -> None:
    assert list(errors_of(**LEAST, meta=meta)) == ["meta"]


def test_a_field_is_not_assigned_to() -> None:
    config = LoraConfig(**LEAST)
    with pytest.raises(ValidationError, match=r"make a changed copy by with_\(epochs=\.\.\.\)"):
        config.epochs = 3  # type: ignore[misc]
    assert config.epochs == 10


def test_one_text_is_a_list_of_one() -> None:
    assert LoraConfig(**LEAST, sample_prompts="ohwx smiling").options.sample_prompts == ("ohwx smiling",)
    assert errors_of(**LEAST, sample_prompts=3) == {"sample_prompts": ["Input should be a list of texts"]}


def test_a_preset_is_a_start() -> None:
    config = LoraConfig.preset("balanced", **LEAST, epochs=3, seed=7)
    assert (config.batch_size, config.network_dim, config.epochs) == (2, 16, 3)
    assert config.options.optimizer == "AdamW8bit"
    assert config.options.seed == 7
    with pytest.raises(ValidationError, match="conservative, balanced, fast"):
        LoraConfig.preset("balancd", **LEAST)  # type: ignore[arg-type]


def test_a_changed_copy_is_validated_and_keeps_the_rest() -> None:
    config = LoraConfig(**LEAST, seed=3)
    changed = config.with_(epochs=5, trigger_word="ohwx")
    assert (changed.epochs, changed.meta) == (5, {"seed": 3, "triggerWord": "ohwx"})
    assert config.epochs == 10
    assert "learning_rate" not in changed.model_fields_set
    with pytest.raises(ValidationError, match="epochs"):
        config.with_(epochs=0)
    with pytest.raises(ValidationError, match="epochs"):
        config.with_(epocs=5)


def test_the_signature_names_every_field_and_option_in_plain_types() -> None:
    parameters = inspect.signature(LoraConfig).parameters
    assert set(parameters) == {*LoraConfig.model_fields, "options", *TrainingOptions.model_fields}
    assert parameters["name"].annotation is str
    assert parameters["epochs"].default == 10
    assert parameters["sample_prompts"].annotation == list[str]
    assert "Annotated" not in str(inspect.signature(LoraConfig))
    assert "Annotated" not in str(inspect.signature(TrainingOptions))


def test_type_checkers_see_the_fields_with_their_defaults() -> None:
    """The constructor that is written for them stands apart from the fields."""
    source = inspect.getsource(LoraConfig)
    block = source[source.index("def __init__") : source.index("**option_fields")]
    for name, field in LoraConfig.model_fields.items():
        assert f" {name}: " in block
        if not field.is_required() and name != "meta":
            default = next(line for line in block.splitlines() if line.strip().startswith(f"{name}: ")).split("= ")[1]
            assert eval(default.rstrip(",")) == field.default  # its own source, not a stranger's


def test_the_help_describes_every_keyword_and_the_schema_does_not() -> None:
    text = inspect.getdoc(LoraConfig) or ""
    assert "    epochs (int, default 10): Passes over the images." in text
    assert "    trigger_word (str | None, default None): " in text
    assert "Args:" not in LoraConfig.model_json_schema()["description"]


def test_completion_shows_fields_and_our_own_methods() -> None:
    names = dir(LoraConfig(**LEAST))
    assert {"epochs", "model_name", "options", "with_"} <= set(names)
    assert not [name for name in names if name.startswith(("_", "model_")) and name != "model_name"]
