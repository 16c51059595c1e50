"""RunFolder: where one run's spec, state, history and outcome lie, and who may write there."""

from __future__ import annotations

import fcntl
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from influencerai import artifacts
from influencerai.domain import TrainingSpec
from influencerai.errors import CheckpointError

SPEC_FILE = "spec.json"
OUTPUT_FILE = "output.json"
RESULT_FILE = "result.json"


@dataclass(frozen=True)
class RunFolder:
    """`<root>/.influencerai/runs/<time>-<name>-<id>`."""

    path: Path

    @classmethod
    def create(cls, runs_dir: Path, spec: TrainingSpec, *, output_dir: Path) -> RunFolder:
        """A new folder for `spec`. The spec is written last: a folder without one is no run."""
        stamp = spec.created_at.strftime("%Y%m%d-%H%M%S")
        runs_dir.mkdir(parents=True, exist_ok=True)
        for attempt in itertools.count(1):
            suffix = f"-{attempt}" if attempt > 1 else ""
            folder = cls(runs_dir / f"{stamp}-{spec.output_name}-{spec.id[:8]}{suffix}")
            with suppress(FileExistsError):
                folder.path.mkdir()
                break
        folder._write(OUTPUT_FILE, {"requested": str(output_dir.resolve())})
        folder._write(SPEC_FILE, spec.to_wire())
        return folder

    @classmethod
    def find_unfinished(cls, runs_dir: Path, *, output_path: Path) -> RunFolder | None:
        """The newest run that wanted to write to `output_path` and has no result."""
        for path in sorted(runs_dir.glob(f"*/{SPEC_FILE}"), reverse=True):
            folder = cls(path.parent)
            if not (folder.path / RESULT_FILE).exists() and folder.requested_output == output_path.resolve():
                return folder
        return None

    @property
    def spec(self) -> TrainingSpec:
        """The run's spec.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            return TrainingSpec.model_validate_json((self.path / SPEC_FILE).read_bytes())
        except (OSError, pydantic.ValidationError) as error:
            raise CheckpointError(f"The run in {self.path} cannot be continued: {error}") from error

    @property
    def requested_output(self) -> Path:
        """The output folder that was asked for, before any suffix."""
        document: dict[str, str] = json.loads((self.path / OUTPUT_FILE).read_text(encoding="utf-8"))
        return Path(document["requested"])

    def write_result(self, document: dict[str, Any]) -> None:
        """The outcome, which also marks the run as finished."""
        self._write(RESULT_FILE, document)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        Raises:
            CheckpointError: another process is training this run.
        """
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(f"Another process is training the run in {self.path}.") from error
            yield

    def _write(self, name: str, document: object) -> None:
        data = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        artifacts.write_atomic(self.path / name, data)
