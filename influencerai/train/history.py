"""History: every step's loss and every validation of a run, as JSON lines beside its state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from influencerai import artifacts
from influencerai.domain import StepEvent, ValidationEvent

Record = dict[str, Any]


class History:
    """Append-only records `{"type": "step" | "validation", "step": ..., "loss": ..., ...}`.

    A resumed run drops what was written after its state and writes it again.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        kept = [record for record in read_history(path) if record["step"] <= after_step]
        artifacts.write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def append(self, event: StepEvent | ValidationEvent) -> None:
        self._file.write(json.dumps(event.to_wire()) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_history(path: Path) -> list[Record]:
    """The records in `path`, or none; a last line that a killed process left half-written is dropped."""
    if not path.exists():
        return []
    records: list[Record] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
