"""Spelling: suggests the known name for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHORTEST_TO_EDIT = 4
"""Letters: in a shorter name, one letter more, less or other makes another word; only swapped letters are a slip."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.85) -> str | None:
    """The one of `known` that differs from `name` by one slip, or whose letters are as alike as `cutoff` (0 to 1).

    One slip is one letter more, less or other, or two neighbours swapped (optimal string alignment distance 1).
    """
    candidates = list(known)
    for candidate in candidates:
        if is_slip(name, candidate):
            return candidate
    matches = difflib.get_close_matches(name, candidates, n=1, cutoff=cutoff)
    return matches[0] if matches else None


def is_slip(name: str, word: str) -> bool:
    """Whether one slip makes `name` out of `word`; in short words the first letter must be the same."""
    if abs(len(name) - len(word)) > 1 or name == word:
        return False
    start = 0
    while start < min(len(name), len(word)) and name[start] == word[start]:
        start += 1
    end = 0
    while end < min(len(name), len(word)) - start and name[-1 - end] == word[-1 - end]:
        end += 1
    left, right = name[start : len(name) - end], word[start : len(word) - end]
    if len(left) == len(right) == 2:
        return left == right[::-1]
    if len(left) > 1 or len(right) > 1 or len(word) < _SHORTEST_TO_EDIT:
        return False
    return start > 0 or len(word) > _SHORTEST_TO_EDIT
