from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from influencerai.cli.config_options import ELSEWHERE, ConfigOption, config_options, given_fields, option_of
from influencerai.cli.train import train
from influencerai.domain import LoraConfig, TrainingOptions

OPTIONS = [parameter for parameter in train.params if isinstance(parameter, ConfigOption)]
VALUES: dict[str, tuple[list[str], Any]] = {
    "textEncoderLearningRate": (["--text-encoder-learning-rate", "0.5"], 0.5),
    "predictionType": (["--prediction-type", "v_prediction"], "v_prediction"),
    "zeroTerminalSnr": (["--zero-terminal-snr"], True),
    "samplePrompts": (["--sample-prompt", "a", "--sample-prompts", "b"], ("a", "b")),
    "fileFormat": (["--format", "both"], "both"),
    "validationSplit": (["--validation-split", "0.2"], 0.2),
    "outputPath": (["--output-path", "out"], "out"),
}
"""Options that need a value of their own; the others are given the field's default, or 1."""


def parse(*arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields and the meta that options give."""
    found: list[dict[str, Any]] = []

    @click.command()
    @config_options
    def command(**values: Any) -> None:
        found.extend((given_fields(values, LoraConfig), given_fields(values, TrainingOptions)))

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    fields, meta = found
    return fields, meta


def test_every_field_has_one_option() -> None:
    expected = {field.alias for name, field in LoraConfig.model_fields.items() if name not in ELSEWHERE}
    expected |= set(TrainingOptions.wire_names())
    assert {option.wire_name for option in OPTIONS} == expected
    assert len(OPTIONS) == len(expected)


@pytest.mark.parametrize("model", [LoraConfig, TrainingOptions])
def test_every_option_gives_its_field_a_value_that_the_model_takes(
    model: type[LoraConfig] | type[TrainingOptions],
) -> None:
    for name, field in model.model_fields.items():
        if name in ELSEWHERE:
            continue
        wire_name = str(field.alias)
        flag = option_of(wire_name)
        assert flag is not None
        if wire_name in VALUES:
            arguments, expected = VALUES[wire_name]
        elif isinstance(field.default, bool):
            arguments, expected = [flag], True
        else:
            expected = 64 if wire_name.startswith("bucket") else field.default or 1
            arguments = [flag, str(expected)]
        fields, meta = parse(*arguments)
        given = fields if model is LoraConfig else meta
        if wire_name == "triggerWord":
            expected = "1"
        assert given == {wire_name: expected}
        LoraConfig.parse({"name": "me", "modelName": "sd15", **fields, "meta": meta})


def test_no_option_gives_nothing() -> None:
    assert parse() == ({}, {})


def test_a_flag_can_be_turned_off_against_a_file() -> None:
    assert parse("--no-ema", "--no-aspect-ratio-buckets")[1] == {"ema": False, "aspectRatioBuckets": False}


def test_none_makes_null() -> None:
    assert parse("--min-snr-gamma", "none")[1] == {"minSnrGamma": None}


def test_none_is_no_value_of_a_field_that_cannot_be_null() -> None:
    result = CliRunner().invoke(train, ["data", "--seed", "none"])
    assert result.exit_code == 2
    assert "'none' is not a valid integer" in result.output


def test_names_are_taken_in_any_case_and_given_in_their_own() -> None:
    assert parse("--optimizer", "adamw8BIT")[1] == {"optimizer": "AdamW8bit"}


def test_the_help_shows_description_range_and_default() -> None:
    text = " ".join(CliRunner().invoke(train, ["--help"]).output.split())
    assert "--network-dim INTEGER LoRA rank. [from 1 to 512; default: 32]" in text
    assert "[AdamW|AdamW8bit|Adafactor|Prodigy|Lion|ScheduleFreeAdamW]" in text
    assert "--ema / --no-ema" in text
    assert "Warm-up in steps; replaces --warmup-ratio. [from 0]" in text
    assert "none: off. [above 0; default: 5]" in text


def test_the_option_of_a_field() -> None:
    assert option_of("learningRate") == option_of("meta.learningRate") == "--learning-rate"
    assert option_of("meta.minSnrGamma") == "--min-snr-gamma"
    assert option_of("root") is None
