"""Numbers, texts and paths of numpy, torch and pathlib are taken as JSON has them."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.plain_values import path_text, plain
from influencerai.errors import ValidationError

LEAST: dict[str, Any] = {"name": "me", "model_name": "sd15"}


class Width(enum.IntEnum):
    SMALL = 8


class Shape(enum.StrEnum):
    FLAT = "constant"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.array(3), 3),
        (np.float32(1e-4), 1e-4),
        (np.float16(0.1), 0.1),
        (np.float64(1e-4), 1e-4),
        (np.longdouble(0.5), 0.5),
        (np.float32(1e-6), 1e-6),
        (np.float32("inf"), float("inf")),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(["a", "b"]), ["a", "b"]),
        (torch.tensor(3), 3),
        (torch.tensor(1e-4), 1e-4),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        (torch.tensor(True), True),
        (torch.Size([2, 3]), (2, 3)),
        (Path("a/b"), "a/b"),
        (Decimal("0.1"), 0.1),
        (Fraction(1, 4), 0.25),
        (Width.SMALL, 8),
        (Shape.FLAT, "constant"),
        ({"seed": np.int64(3), "list": (np.float32(0.1),)}, {"seed": 3, "list": (0.1,)}),
    ],
)
def test_values_of_other_libraries_become_plain(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [None, True, 0, 0.1, "x", b"x", object, {1}])
def test_other_values_stay(value: Any) -> None:
    assert plain(value) is value


def test_configurations_take_them_wherever_they_are_made() -> None:
    fields: dict[str, Any] = {
        "epochs": np.int64(3),
        "learning_rate": np.float32(1e-6),
        "output_path": Path("out") / "me",
    }
    options: dict[str, Any] = {"ema": np.bool_(True), "seed": torch.tensor(7), "sample_prompts": np.array(["a", "b"])}
    for config in (
        LoraConfig(**LEAST, **fields, **options),
        LoraConfig(**LEAST).with_(**fields, **options),
        LoraConfig(**LEAST, **fields, options=TrainingOptions(**options)),
        LoraConfig.parse({**LEAST, **fields, "meta": TrainingOptions.by_wire_name(options)}),
    ):
        wire = json.loads(json.dumps(config.to_wire()))
        assert (wire["epochs"], wire["learningRate"], wire["outputPath"]) == (3, 1e-6, "out/me")
        assert wire["meta"] == {"ema": True, "seed": 7, "samplePrompts": ["a", "b"]}


@pytest.mark.parametrize("value", [np.float64(3.0), torch.tensor([3, 4]), np.array(["3"]), np.bool_(True), Path("3")])
def test_they_are_checked_as_plain_values_are(value: Any) -> None:
    with pytest.raises(ValidationError, match="epochs: Input should be a valid integer"):
        LoraConfig(**LEAST, epochs=value)


@pytest.mark.parametrize("value", [None, 3, b"x", ["a"], object(), "a\0b"])
def test_what_is_no_path_is_refused_by_the_name_of_its_argument(value: Any) -> None:
    with pytest.raises(ValidationError, match="dataset: Input should "):
        path_text(value, field="dataset")
