"""How an answer is held against the one that the reference shows: more fields may be there, none renamed or dropped."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def differences(shown: Any, answered: Any, *, free: Collection[str] = (), path: str = "") -> list[str]:
    """What `answered` lacks of `shown`: a field, its type, or its value.

    Times need only look alike. Of the fields that `free` names, such as `result.finalLoss`, only the type counts.
    """
    here = path or "the body"
    if _kind(shown) != _kind(answered):
        return [f"{here} is {answered!r} where {shown!r} is shown"]
    if isinstance(shown, dict):
        missing = [f"{here} lacks {name}" for name in shown if name not in answered]
        inner = [
            found
            for name in shown
            if name in answered
            for found in differences(shown[name], answered[name], free=free, path=f"{path}.{name}".lstrip("."))
        ]
        return missing + inner
    if isinstance(shown, list):
        if len(shown) != len(answered):
            return [f"{here} has {len(answered)} items where {len(shown)} are shown"]
        pairs = zip(shown, answered, strict=True)
        return [found for one, other in pairs for found in differences(one, other, free=free, path=path)]
    if isinstance(shown, str) and _TIME.fullmatch(shown):
        return [] if _TIME.fullmatch(answered) else [f"{here} is {answered!r}, which is no time like {shown}"]
    if path in free or shown == answered:
        return []
    return [f"{here} is {answered!r} where {shown!r} is shown"]


def _kind(value: Any) -> str:
    for kind, name in ((bool, "boolean"), (int | float, "number"), (str, "text"), (dict, "object"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "null"
