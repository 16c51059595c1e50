"""What a name becomes as a folder, a file and an alias."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influencerai.domain import LoraConfig
from influencerai.domain.output_path import output_name, output_path, slug


def config(name: str) -> LoraConfig:
    return LoraConfig(name=name, model_name="sd15")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("My Influencer V1!", "my-influencer-v1"),
        ("!!!", "lora"),
        ("魔女", "魔女"),
        ("夏目", "夏目"),
        ("Zoë", "zoe"),
        ("Ünïcode", "unicode"),
        ("ééé", "eee"),
        ("Ёлка 2", "ёлка-2"),
        ("देवी", "देवी"),
        ("が", "が"),
        ("①", "1"),
        ("\U0001d468", "a"),
        ("CON", "con-lora"),
        ("com1", "com1-lora"),
        ("nul.txt", "nul-txt"),
        ("Conan", "conan"),
    ],
)
def test_a_name_in_any_script_names_its_folder_and_its_files(name: str, stem: str) -> None:
    assert output_path(config(name)) == f"data/loras/{stem}"
    assert output_name(config(name)) == stem
    decomposed = unicodedata.normalize("NFD", name)
    assert output_name(config(decomposed)) == stem, "a name is the same in every Unicode form"


def test_names_without_any_letter_are_told_apart() -> None:
    names = [output_name(config(name)) for name in ("🙂", "🙃")]
    assert len(set(names)) == 2
    assert all(name.startswith("lora-") for name in names)


@given(st.text(min_size=1, max_size=300))
def test_a_slug_is_a_file_name_of_bounded_length(text: str) -> None:
    found = slug(text, default="x")
    assert 1 <= len(found.encode()) <= 200
    assert not set(found) & set("/\\\0. \n")
    assert slug(found, default=found) == found  # a mark alone is no slug


@given(st.text(st.characters(max_codepoint=127), min_size=1, max_size=100))
def test_the_slug_of_ascii_is_letters_digits_and_dashes(text: str) -> None:
    kept = "".join(character if character.isalnum() else " " for character in text.lower())
    assert slug(text, default="x") == ("-".join(kept.split()) or "x")
