"""Report: the summary of a batch as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from influencerai.batch.rows import BatchRow
from influencerai.errors import InfluencerAIError, TrainingError
from influencerai.files import atomic_file

REPORTS = (".csv", ".json")
"""Suffixes of a report."""
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_OTHER_REPORT = "Name another file by --report; nothing was started."


def result_of(rows: Sequence[BatchRow]) -> dict[str, Any]:
    """The summary as JSON."""
    return {"trainings": [row.to_report() for row in rows]}


def failure_of(rows: Sequence[BatchRow]) -> TrainingError | None:
    """The error that ends the command where trainings have failed."""
    failed = [row.name for row in rows if row.status == "failed"]
    if not failed:
        return None
    error = TrainingError(
        f"Of {len(rows)} trainings {len(failed)} failed: {', '.join(failed)}.",
        remedy="The same command with --retry-failed tries them again.",
    )
    error.failure = result_of(rows)
    return error


def check_report(path: Path) -> None:
    """Make the report's folder, and see that a file can be written there.

    Raises:
        InfluencerAIError: none can.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InfluencerAIError(f"The report {path} cannot be written: it is a folder.", remedy=_OTHER_REPORT)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        text = f"The report {path} cannot be written: {error.strerror or error}."
        raise InfluencerAIError(text, remedy=_OTHER_REPORT) from error


def write_report(path: Path, rows: Sequence[BatchRow]) -> None:
    """The summary as CSV or JSON, by the suffix. In CSV no text is a formula to a spreadsheet.

    Raises:
        InfluencerAIError: the file cannot be written.
    """
    if path.suffix.lower() == ".json":
        text = json.dumps(result_of(rows), indent=1, ensure_ascii=False) + "\n"
    else:
        documents = [{name: _cell(value) for name, value in row.to_report().items()} for row in rows]
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, fieldnames=list(documents[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(documents)
        text = buffer.getvalue()
    atomic_file.write_atomic(path, text.encode())


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would calculate gets an apostrophe in front; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare CR would not be quoted, and end the row
    return f"'{text}" if value.startswith(_FORMULAS) else text
