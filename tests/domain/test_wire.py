"""What every noun shares: names, near misses, nulls, strict numbers, and the way to JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field, StrictInt

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.dataset import DatasetDraft
from influencerai.domain.job import JobChange, JobDraft, JobPayload
from influencerai.domain.wire import Number, WireModel
from influencerai.errors import ValidationError
from influencerai.spelling import nearest


class Paint(WireModel):
    """A noun of the tests."""

    base_colour: str
    coats: StrictInt = Field(default=2, ge=1, le=9)
    gloss: Number = 16
    primer: str | None = "white"


class Wall(WireModel):
    paint: Paint
    height: Number = 2.5


def errors_of(model: type[WireModel], data: dict[str, Any], *, prefix: str = "") -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as raised:
        model.parse(data, prefix=prefix)
    return raised.value.field_errors


def test_both_spellings_are_read_and_camel_case_is_written() -> None:
    assert Paint.parse({"baseColour": "red"}) == Paint.parse({"base_colour": "red"}) == Paint(base_colour="red")
    assert Paint(base_colour="red").to_wire() == {"baseColour": "red", "coats": 2, "gloss": 16, "primer": "white"}


def test_models_are_frozen() -> None:
    paint = Paint(base_colour="red")
    with pytest.raises(ValidationError, match="coats: A Paint is frozen"):
        paint.coats = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="coats: A Paint is frozen"):
        del paint.coats
    assert paint.coats == 2


def test_a_field_in_both_spellings_is_refused() -> None:
    assert errors_of(Paint, {"baseColour": "red", "base_colour": "blue", "coats": 0}, prefix="p.") == {
        "p.baseColour": ["This stands twice, as 'base_colour' and as 'baseColour'"],
        "p.coats": ["Input should be greater than or equal to 1"],
    }
    assert Paint.parse({"baseColour": "red", "base_colour": None}).base_colour == "red"
    with pytest.raises(ValidationError, match="baseColour"):
        Paint.by_wire_name({"baseColour": "red", "base_colour": "blue"})
    assert Paint.restore({"baseColour": "red", "base_colour": "blue"})  # as an earlier version stored it


@pytest.mark.parametrize("document", [None, "baseColour", 3, [("baseColour", "red")]])
def test_what_is_no_document_is_refused_in_our_own_words(document: Any) -> None:
    for read in (Paint.parse, Paint.restore):
        with pytest.raises(ValidationError, match="A Paint is read from a mapping of its fields"):
            read(document)


@pytest.mark.parametrize("name", ["basecolour", "BaseColour", "base-colour", "baseColor", "base_color", "baseColuor"])
def test_a_near_miss_is_an_error_of_its_own_name_with_the_suggestion(name: str) -> None:
    found = errors_of(Paint, {"baseColour": "red", name: "blue"})
    assert found == {name: [f"Unknown field '{name}', did you mean 'baseColour'?"]}


def swapped(name: str) -> set[str]:
    """Every spelling of the name with two neighbouring letters swapped."""
    return {name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1)} - {name}


@pytest.mark.parametrize("model", [DatasetDraft, LoraConfig, TrainingOptions, JobDraft, JobPayload, JobChange])
def test_two_swapped_letters_of_any_field_are_a_near_miss(model: type[WireModel]) -> None:
    missed = {
        (field, name)
        for field in model.wire_names()
        for name in swapped(field)
        if name not in model.wire_names() and model.nearest_field(name) is None
    }
    assert not missed


@pytest.mark.parametrize(
    ("name", "meant"),
    [("mata", "meta"), ("met", "meta"), ("metaa", "meta"), ("pathh", "path"), ("knd", "kind"), ("statuz", "status")],
)
def test_one_wrong_letter_of_a_short_field_is_a_near_miss(name: str, meant: str) -> None:
    assert nearest(name, ["meta", "path", "kind", "status"]) == meant


@pytest.mark.parametrize("name", ["ids", "beta", "data", "mind", "emb", "tag", "cost", "note"])
def test_another_short_word_is_no_near_miss(name: str) -> None:
    assert nearest(name, ["id", "meta", "kind", "ema", "flip", "gpus"]) is None


def test_every_near_miss_is_reported_at_once() -> None:
    assert set(errors_of(Paint, {"basecolour": "red", "coat": 1})) == {"basecolour", "coat"}


def test_other_unknown_fields_are_ignored_and_can_be_listed() -> None:
    data = {"baseColour": "red", "shop": "around the corner", "id": 7}
    assert Paint.parse(data) == Paint(base_colour="red")
    assert Paint.unknown_fields(data) == ["shop", "id"]


def test_null_is_absent_unless_the_field_can_be_null() -> None:
    found = Paint.parse({"baseColour": "red", "coats": None, "gloss": None, "primer": None})
    assert (found.coats, found.gloss, found.primer) == (2, 16, None)
    assert list(errors_of(Paint, {"baseColour": None})) == ["baseColour"]


def test_parsing_leaves_what_was_sent_alone() -> None:
    data = {"baseColour": "red", "coats": None}
    Paint.parse(data)
    assert data == {"baseColour": "red", "coats": None}


@pytest.mark.parametrize("value", [True, "2", 2.0, 2.5, [2], "two"])
def test_an_integer_is_an_integer(value: Any) -> None:
    assert list(errors_of(Paint, {"baseColour": "red", "coats": value})) == ["coats"]


@pytest.mark.parametrize("value", [True, "2", float("nan"), float("inf"), [2]])
def test_a_number_is_a_finite_number(value: Any) -> None:
    assert list(errors_of(Paint, {"baseColour": "red", "gloss": value})) == ["gloss"]


@pytest.mark.parametrize(("sent", "text"), [(16, "16"), (16.0, "16"), (0.5, "0.5"), (1e-4, "0.0001")])
def test_a_number_comes_back_as_json_writes_it(sent: float, text: str) -> None:
    wire = Paint.parse({"baseColour": "red", "gloss": sent}).to_wire()
    assert json.dumps(wire["gloss"]) == text
    assert json.dumps(Paint(base_colour="red").to_wire()["gloss"]) == "16"


def test_nested_errors_carry_their_path_and_the_prefix() -> None:
    assert set(errors_of(Wall, {"paint": {"baseColour": 7, "coats": 0}}, prefix="payload.")) == {
        "payload.paint.baseColour",
        "payload.paint.coats",
    }
    assert list(errors_of(Wall, {"paint": {"basecolour": "red"}})) == ["paint.basecolour"]


def test_a_message_names_the_inclusive_bound() -> None:
    assert errors_of(Paint, {"baseColour": "red", "coats": 0})["coats"] == [
        "Input should be greater than or equal to 1"
    ]
    assert errors_of(Paint, {"baseColour": "red", "coats": 10})["coats"] == ["Input should be less than or equal to 9"]
