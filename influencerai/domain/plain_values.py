"""Plain values: numbers, texts and paths as JSON has them, whatever library of Python they come from."""

from __future__ import annotations

import numbers
import operator
import os
import struct
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

from influencerai.errors import ValidationError

_DEEPEST = 64
_SINGLE_PRECISION = {2: ("<e", 5), 4: ("<f", 9)}
"""By bytes of a number: its format, and the digits that tell all its numbers apart."""


def plain(value: Any, *, levels: int = _DEEPEST) -> Any:
    """The value as JSON has it: of numpy, torch and pandas their numbers, texts and lists, of a path its text.

    None of these libraries is imported. A number of less than double precision becomes the shortest decimal that it
    stands for, so that `float32(1e-4)` is 0.0001. What is none of these is returned as it is.
    """
    if value is None or type(value) in (bool, int, float, str) or not levels:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item, levels=levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(item, levels=levels - 1) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(tolist := getattr(value, "tolist", None)) and not isinstance(value, type):
        found = tolist()
        if type(found) is not type(value):
            return _shortest(found, size=getattr(value, "itemsize", 8)) if isinstance(found, float) else plain(found)
    if hasattr(value, "__index__") and not isinstance(value, type):
        return operator.index(value)
    return float(value) if isinstance(value, numbers.Real | Decimal) else value


def check_plain(value: Any, *, levels: int = 32) -> None:
    """Refuse what JSON cannot carry there and back.

    Raises:
        ValueError: half a surrogate pair, an integer of thousands of digits, no type of JSON, or over `levels` levels.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half a surrogate pair in the text {value[:40]!a}") from error
    elif isinstance(value, int) and value.bit_length() > 14_000:
        raise ValueError("a number of more than 4000 digits")
    elif isinstance(value, Mapping | list | tuple):
        if not levels:
            raise ValueError("lists and mappings are nested too deeply")
        for item in (*value, *value.values()) if isinstance(value, Mapping) else value:
            check_plain(item, levels=levels - 1)
    elif not isinstance(value, int | float | date | time | None):
        raise ValueError(f"{type(value).__name__} where JSON has no such type")


def path_text(value: Any, *, field: str) -> str:
    """The text of a path that a caller gave.

    Raises:
        ValidationError: it is neither a text nor a path, or one that no file system has.
    """
    text = plain(value)
    if not isinstance(text, str):
        shown = type(value).__name__
        raise ValidationError(field_errors={field: [f"Input should be a path: a text or a pathlib.Path, not {shown}"]})
    if "\0" in text:
        raise ValidationError(field_errors={field: ["Input should hold no NUL"]})
    return text


def _shortest(number: float, *, size: int) -> float:
    """The decimal with the fewest digits that is `number` in a precision of `size` bytes."""
    if size not in _SINGLE_PRECISION:
        return number
    form, most = _SINGLE_PRECISION[size]
    try:
        packed = struct.pack(form, number)
        if struct.unpack(form, packed)[0] == number:  # not of bfloat16, which has the size of half precision
            texts = (f"{number:.{digits}g}" for digits in range(1, most + 1))
            return next(float(text) for text in texts if struct.pack(form, float(text)) == packed)
    except (OverflowError, StopIteration):
        pass
    return number
