"""Left out: the files of a folder that are neither pictures nor captions, by kind, in few sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from influencerai.dataset.file_kinds import KINDS, FileKind
from influencerai.dataset.report import LeftOut, listed

LISTED_PATHS = 1000
"""Paths of one kind that a report lists."""


def left_out_files(kinds: Mapping[str, FileKind]) -> list[LeftOut]:
    """The files that are not used, by kind; the kinds in the order of their names, the paths sorted."""
    paths: dict[FileKind, list[str]] = {}
    for path, kind in sorted(kinds.items()):
        if not kind.is_used:
            paths.setdefault(kind, []).append(path)
    return [
        LeftOut(kind=kind.name, paths=tuple(of[:LISTED_PATHS]), count=len(of), reason=kind.reason, remedy=kind.remedy)
        for kind, of in sorted(paths.items(), key=lambda item: item[0].name)
    ]


def left_out_findings(files: Sequence[LeftOut]) -> tuple[list[str], list[str]]:
    """(warnings, notes): one warning for each kind that the user may have meant, one note for all others."""
    warnings = [
        f"{named(group)} left out: {_listed(group)}. {group.reason} {group.remedy}"
        for group in files
        if not KINDS[group.kind].is_expected
    ]
    others = [f"{named(group)} ({_listed(group)})" for group in files if KINDS[group.kind].is_expected]
    return warnings, [f"Not part of the dataset: {', '.join(others)}."] if others else []


def named(files: LeftOut) -> str:
    """Number and noun, such as `3 masks`."""
    kind = KINDS[files.kind]
    return f"{files.count:,} {kind.name if files.count == 1 else kind.plural}"


def _listed(files: LeftOut) -> str:
    hidden = files.count - len(files.paths)
    return listed([*files.paths, *[""] * hidden])
