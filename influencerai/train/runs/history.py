"""History: every step's loss and every validation of a run, as JSON lines beside its state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from influencerai.domain import StepEvent, ValidationEvent
from influencerai.errors import CheckpointError
from influencerai.files import atomic_file, file_system

HISTORY_FILE = "history.jsonl"

Record = dict[str, Any]


class History:
    """Append-only records `{"type": "step" | "validation", "step": ..., "loss": ..., ...}`.

    A resumed run drops what was written after its state and writes it again.

    Raises:
        InfluencerAIError: the file system refuses; a line may be half-written then.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        kept = [record for record in read_history(path) if record["step"] <= after_step]
        atomic_file.write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._path = path
        with file_errors(path):
            self._file = path.open("a", encoding="utf-8")

    def append(self, event: StepEvent | ValidationEvent) -> None:
        with file_errors(self._path):
            self._file.write(json.dumps(event.to_wire()) + "\n")
            self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # the rest of a line that `append` has already failed to write
            self._file.close()


def read_history(path: Path) -> list[Record]:
    """The records in `path`, or none; a last line that a killed process left half-written is dropped.

    Raises:
        CheckpointError: the file is there and cannot be read.
    """
    try:
        with file_errors(path, but=FileNotFoundError):
            lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    records: list[Record] = []
    for line in lines:
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError):
            break
        if not (isinstance(record, dict) and type(record.get("step")) is int and "type" in record):
            break
        records.append(record)
    return records


@contextmanager
def file_errors(path: Path, *, but: type[OSError] | None = None) -> Iterator[None]:
    """Turn what the file system refuses in a run's folder into a CheckpointError that names `path`."""
    try:
        yield
    except OSError as error:
        if but and isinstance(error, but):
            raise
        raise CheckpointError(
            f"{path} cannot be read or written: {file_system.refusal(error, path.parent)}.",
            remedy="Free space on that disk, or choose a root that you may write to and a shorter outputPath.",
        ) from error
