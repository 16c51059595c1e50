"""Caption text: one caption as it enters a training."""

from __future__ import annotations

import unicodedata

from influencerai.dataset.formats import FORMATS, sniff

MAX_CAPTION_BYTES = 2**16

_INVISIBLE = dict.fromkeys(
    [0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
"""Soft hyphens, blanks without width, marks of bytes and directions, which editors and web pages leave in texts.

They would split a word into other tokens. Joiners stay, since scripts and emojis need them.
"""
_MOST_CONTROLS, _SHARE_OF_CONTROLS = 2, 0.05


def clean(text: str) -> str:
    """A caption on one line, without surplus white space and invisible characters, encodable as UTF-8.

    Lines are joined with commas, or with a blank where a line ends in punctuation.
    """
    text = text.replace("\0", " ").translate(_INVISIBLE).encode("utf-8", "replace").decode()
    text = "".join(char for char in text if char.isspace() or not _is_control(char))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    joined = ""
    for line in filter(None, lines):
        separator = "" if not joined else " " if joined[-1] in ".,;:!?" else ", "
        joined += separator + line
    return joined


def is_binary(data: bytes, text: str) -> bool:
    """Whether a file that is named as a caption is none, such as a picture; `text` is what was read of it."""
    controls = sum(_is_control(char) and not char.isspace() for char in text)
    return sniff(data) in FORMATS or controls > max(_MOST_CONTROLS, _SHARE_OF_CONTROLS * len(text))


def _is_control(char: str) -> bool:
    return unicodedata.category(char) == "Cc"
