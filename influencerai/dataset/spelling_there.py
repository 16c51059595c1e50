"""Spelling there: names of a folder that systems which know no case or Unicode form take for the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from influencerai.dataset.file_names import name_key


def folded(path: str) -> str:
    """The form in which names are the same file on any system."""
    return name_key(path).casefold()


class Spelling:
    """The first spelling of each file and folder; later ones of the same name are taken for it."""

    def __init__(self, present: Iterable[str]) -> None:
        self._known: dict[str, str] = {}
        for path in present:
            self.add(path)

    def add(self, path: str) -> str:
        """The path as files that are known already spell it, which is known from now on."""
        spelled = ""
        for part in PurePosixPath(path).parts:
            whole = f"{spelled}/{part}" if spelled else part
            spelled = self._known.setdefault(folded(whole), whole)
        return spelled
