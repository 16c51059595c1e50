"""File names: the form in which names are compared wherever two files speak of each other."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath


def name_key(path: str) -> str:
    """The form in which names are compared wherever two files speak of each other.

    macOS decomposes letters with accents and writes narrow spaces into the names of screenshots.
    """
    if path.isascii():
        return path
    composed = unicodedata.normalize("NFC", path)
    return "".join(" " if unicodedata.category(char) == "Zs" else char for char in composed)


def stem_of(path: str) -> str:
    """The path without the suffix of its last part, as it is compared."""
    return name_key(str(PurePosixPath(path).with_suffix("")))
