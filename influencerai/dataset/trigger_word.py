"""Trigger word: whether a caption has it, in scripts with and without blanks between words."""

from __future__ import annotations

import unicodedata

_UNSPACED = (
    *(("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"), ("\u1100", "\u11ff")),
    *(("\u3040", "\u30ff"), ("\u31f0", "\u31ff"), ("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uac00", "\ud7af")),
    *(("\uf900", "\ufaff"), ("\uff66", "\uff9f"), ("\U00020000", "\U0003ffff")),
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese; and Korean, where particles follow a word without a blank."""


def contains_trigger(caption: str, trigger_word: str) -> bool:
    """Whether the trigger word stands in the caption, in any case and Unicode form.

    It must stand as whole words, except beside letters of scripts that have no blanks between words.
    """
    text, word = _compared(caption), _compared(" ".join(trigger_word.split()))
    start = text.find(word) if word else -1
    while start >= 0:
        end = start + len(word)
        before, after = text[start - 1 : start], text[end : end + 1]
        if not _is_one_word(before, word[0]) and not _is_one_word(word[-1], after):
            return True
        start = text.find(word, start + 1)
    return False


def _compared(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _is_one_word(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word."""
    if not left or not right:
        return False
    if unicodedata.category(right).startswith("M"):
        return True
    return _is_of_word(left) and _is_of_word(right) and not _is_unspaced(left) and not _is_unspaced(right)


def _is_of_word(char: str) -> bool:
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")


def _is_unspaced(char: str) -> bool:
    return any(first <= char <= last for first, last in _UNSPACED)
