from __future__ import annotations

from PIL import Image, ImageDraw

from influencerai.generate.labels import lettering, wrapped

NOWHERE = "\U0003fffd"
"""A code point that no script has."""


def test_latin_and_cyrillic_are_drawn_as_they_are() -> None:
    for text in ("ohwx woman", "Zoë à côté", "Ночь над рекой"):
        font, shown = lettering(text, size=16)
        assert shown == text
        missing = font.getmask("\U0010fffd")
        assert all(bytes(font.getmask(letter)) != bytes(missing) for letter in text if letter != " ")


def test_what_no_font_has_becomes_an_escape() -> None:
    _, shown = lettering(f"ohwx {NOWHERE}\n\x1b", size=16)
    assert shown == r"ohwx \U0003fffd \x1b"


def test_a_text_is_wrapped_at_words_and_cut_at_the_last_line() -> None:
    font, lines = wrapped("portrait of ohwx woman in front of a wall " * 5, size=14, width=160, lines=3)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 160 for line in lines)
    assert lines[0].startswith("portrait of")


def test_a_word_wider_than_the_line_is_wrapped_too() -> None:
    font, lines = wrapped("m" * 40, size=14, width=100, lines=9)
    assert "".join(lines) == "m" * 40
    assert all(font.getlength(line) <= 100 for line in lines)


def test_nothing_is_no_line() -> None:
    assert wrapped(" \n ", size=14, width=100, lines=2)[1] == []
    ImageDraw.Draw(Image.new("RGB", (4, 4)))
