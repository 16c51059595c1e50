"""Upload report: what an upload changed, what it left out, and what of that may have been meant."""

from __future__ import annotations

from pydantic import Field

from influencerai.dataset.file_names import name_key
from influencerai.dataset.left_out import left_out_files, left_out_findings
from influencerai.dataset.report import listed
from influencerai.dataset.uploads.received_files import Findings
from influencerai.dataset.uploads.received_names import shown
from influencerai.dataset.uploads.stored_names import StoredNames
from influencerai.domain.dataset import RenamedFile, SkippedFile
from influencerai.domain.wire import WireModel


class UploadReport(WireModel):
    """The changes that an upload made. Paths are relative to the dataset folder, and sorted."""

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = Field(default=(), description="Were there with other bytes.")
    unchanged: tuple[str, ...] = Field(default=(), description="Were there with the same bytes.")
    caption_count: int = Field(default=0, description="Caption files among all these.")
    skipped: tuple[SkippedFile, ...] = Field(default=(), description="Neither pictures nor captions, so left out.")
    renamed: tuple[RenamedFile, ...] = Field(default=(), description="Stored under another name than they came with.")
    warnings: tuple[str, ...] = Field(default=(), description="About files that were left out and may have been meant.")

    def with_left_out(self, found: Findings, *, names: StoredNames) -> UploadReport:
        """The report with the files that were left out or renamed."""
        update = {"skipped": _skipped(found), "renamed": _renamed(names), "warnings": _warnings(found)}
        return self.model_copy(update=update)


def nothing_usable(found: Findings) -> dict[str, list[str]]:
    """Errors of an upload that brings nothing, with the reason for each file."""
    reasons = {file.field: [f"{reason} {remedy}".strip()] for file, reason, remedy in found.skipped}
    return {"files": ["There are no images or captions."], **reasons}


def _skipped(found: Findings) -> tuple[SkippedFile, ...]:
    files = (
        SkippedFile(name=shown(file.source), reason=reason, remedy=remedy) for file, reason, remedy in found.skipped
    )
    return tuple(sorted(files, key=lambda file: file.name))


def _warnings(found: Findings) -> tuple[str, ...]:
    """Sentences about the files that were left out and may have been meant, as an inspection writes them."""
    kinds = {shown(file.source): file.kind for file, _, _ in found.skipped if not file.kind.is_used}
    others: dict[tuple[str, str], list[str]] = {}
    for file, reason, remedy in found.skipped:
        if file.kind.is_used:
            others.setdefault((reason, remedy), []).append(shown(file.source))
    texts = [f"{listed(sorted(names))}: {reason} {remedy}".strip() for (reason, remedy), names in others.items()]
    return (*left_out_findings(left_out_files(kinds))[0], *sorted(texts))


def _renamed(names: StoredNames) -> tuple[RenamedFile, ...]:
    files = (
        RenamedFile(name=shown(file.source), stored_as=stored)
        for file, stored in names.by_file.items()
        if name_key(file.path) != stored
    )
    return tuple(sorted(files, key=lambda file: file.name))
