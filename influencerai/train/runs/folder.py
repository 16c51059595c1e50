"""RunFolder: where one run's spec, state, history and outcome lie, and who may write there."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pydantic

from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.domain.output_path import (
    DEFAULT_FOLDER,
    RUN_MARKER,
    folded_name,
    name_slug,
    output_path,
    output_path_of_run,
)
from influencerai.domain.wire import STORED, field_errors
from influencerai.errors import CheckpointError, ExportError
from influencerai.files import atomic_file, file_system
from influencerai.train.runs.history import file_errors

SPEC_FILE = "spec.json"
OUTPUT_FILE = "output.json"
CONTINUED_FILE = "continued.json"
"""Names the run that goes on from this one with other epochs."""
RESULT_FILE = "result.json"


@dataclass(frozen=True)
class RunFolder:
    """`<root>/.influencerai/runs/<time>-<name>-<id>`."""

    path: Path

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        spec: TrainingSpec,
        *,
        output_dir: Path,
        backend: str,
        fill: Callable[[Path], None] = lambda folder: None,
    ) -> RunFolder:
        """A new folder for `spec`, with the files that `fill` writes into it.

        The spec is written last: a folder without one is no run.

        Raises:
            CheckpointError: the folder cannot be made.
            ExportError: `output_dir` leads nowhere.
        """
        requested = _resolve(output_dir)
        stamp = spec.created_at.strftime("%Y%m%d-%H%M%S")
        with file_errors(runs_dir):
            runs_dir.mkdir(parents=True, exist_ok=True)
        for attempt in itertools.count(1):
            suffix = f"-{attempt}" if attempt > 1 else ""
            folder = cls(runs_dir / f"{stamp}-{spec.output_name}-{spec.id[:8]}{suffix}")
            with suppress(FileExistsError), file_errors(folder.path, but=FileExistsError):
                folder.path.mkdir()
                break
        root = _root_of(runs_dir)
        within = requested.relative_to(root).as_posix() if requested.is_relative_to(root) else None
        folder._write(OUTPUT_FILE, {"requested": str(requested), "withinRoot": within, "backend": backend})
        fill(folder.path)
        folder._write(SPEC_FILE, spec.to_wire())
        return folder

    @classmethod
    def list_runs(cls, runs_dir: Path, *, config: LoraConfig) -> list[RunFolder]:
        """The runs that were to write where `config` does, newest first.

        Without an output path these are the runs of the same name, wherever that has led (see `run_place`).

        Raises:
            ExportError: the output path leads nowhere.
        """
        root = _root_of(runs_dir)
        requested = _resolve(root / output_path(config))
        folders = cls.all(runs_dir)
        return [
            folder
            for folder in folders
            if (folder._wrote_to(requested, root=root) or folder._may_be_called_as(config))
            and folder.is_called_as(config) is not False
        ]

    @classmethod
    def all(cls, runs_dir: Path) -> list[RunFolder]:
        """Every run, newest first.

        Raises:
            CheckpointError: the folder cannot be listed.
        """
        with file_errors(runs_dir):
            return [cls(path.parent) for path in sorted(runs_dir.glob(f"*/{SPEC_FILE}"), reverse=True)]

    @classmethod
    def find_unfinished(cls, runs_dir: Path, *, config: LoraConfig, backend: str) -> RunFolder | None:
        """The newest run by `backend` that was to write where `config` does and has no result."""
        runs = cls.list_runs(runs_dir, config=config)
        return next((run for run in runs if not run.has_ended and run.backend == backend), None)

    @property
    def spec(self) -> TrainingSpec:
        """The run's spec.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            return TrainingSpec.model_validate_json((self.path / SPEC_FILE).read_bytes(), context=STORED)
        except OSError as error:
            raise CheckpointError(f"The run in {self.path} cannot be continued: {error}.") from error
        except pydantic.ValidationError as error:
            texts = "; ".join(f"{name}: {', '.join(found)}" for name, found in field_errors(error).items())
            raise CheckpointError(
                f"The run in {self.path} cannot be continued: its {SPEC_FILE} is damaged ({texts}).",
                remedy="Start a new run without resuming, or delete that folder.",
            ) from error

    @property
    def backend(self) -> str:
        """Name of the backend that the run was started with."""
        return str(self._origin.get("backend"))

    @property
    def is_finished(self) -> bool:
        return (self.path / RESULT_FILE).exists()

    @property
    def has_ended(self) -> bool:
        """Whether it is finished, or another run goes on from it with other epochs."""
        return self.is_finished or self.is_continued

    @property
    def is_continued(self) -> bool:
        """Whether another run goes on from it."""
        return (self.path / CONTINUED_FILE).exists()

    def mark_continued(self, spec_id: str) -> None:
        """Leave the rest to the run of that spec."""
        self._write(CONTINUED_FILE, {"by": spec_id})

    @property
    def result(self) -> dict[str, Any]:
        """The outcome that `write_result` wrote; empty where there is none, or none that can be read."""
        return _read_document(self.path / RESULT_FILE)

    def write_result(self, document: dict[str, Any]) -> None:
        """The outcome, which also marks the run as finished."""
        self._write(RESULT_FILE, document)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        Raises:
            CheckpointError: another process is training this run, or the folder cannot be locked.
        """
        path = self.path / "lock"
        with file_errors(path):
            file = path.open("ab")
        with file, ExitStack() as held:
            try:
                with file_errors(path, but=BlockingIOError):
                    held.enter_context(file_system.file_lock(file.fileno(), path))
            except BlockingIOError as error:
                raise CheckpointError(
                    f"Another process is training the run in {self.path}: {error.strerror}."
                ) from error
            yield

    def _wrote_to(self, requested: Path, *, root: Path) -> bool:
        """Whether `requested` is where the run was to write, also when the whole root has another place now.

        Names are compared in one Unicode form, since file systems and terminals differ in it.
        """
        origin = self._origin
        known = origin.get("requested")
        if not isinstance(known, str):
            return False
        places = {_composed(known)}
        if isinstance(within := origin.get("withinRoot"), str):
            places.add(_composed(str(root / within)))
        elif "withinRoot" not in origin and (path := self._own_output_path()):
            places.add(_composed(str(root / path)))
        return _composed(str(requested)) in places

    def _may_be_called_as(self, config: LoraConfig) -> bool:
        """Whether the default folder of the same name may be the run's; slugs of ASCII have never changed."""
        requested = PurePath(str(self._origin.get("requested")))
        if config.output_path or requested.parts[-3:-1] != PurePath(DEFAULT_FOLDER).parts:
            return False
        return not config.name.isascii() or requested.name.startswith(name_slug(config.name))

    def is_called_as(self, config: LoraConfig) -> bool | None:
        """Whether the run and `config`, both without an output path, have one name; None where that is not known."""
        try:
            own = self.spec.config
        except CheckpointError:
            return None
        if config.output_path or own.output_path:
            return None
        return folded_name(own.name) == folded_name(config.name)

    def _own_output_path(self) -> str | None:
        """The output path below the root by the spec, of a run that did not write it down."""
        try:
            spec = self.spec
        except CheckpointError:
            return None
        path = output_path_of_run(spec.config, output_name=spec.output_name)
        requested = PurePath(str(self._origin.get("requested")))
        parts = PurePath(path).parts
        return path if not PurePath(path).is_absolute() and requested.parts[-len(parts) :] == parts else None

    @property
    def _origin(self) -> dict[str, Any]:
        """What was asked for; empty where that cannot be read."""
        return _read_document(self.path / OUTPUT_FILE)

    def _write(self, name: str, document: object) -> None:
        data = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        atomic_file.write_atomic(self.path / name, data)


def find_run(path: Path) -> RunFolder:
    """The run that `path` belongs to: its run folder, its output folder, or a file in the latter.

    Raises:
        CheckpointError: there is none.
    """
    path = path.resolve()
    if (path / SPEC_FILE).is_file():
        return RunFolder(path)
    folder = path if path.is_dir() else path.parent
    marker = folder / RUN_MARKER
    if marker.is_file():
        with file_errors(marker):
            run_id = marker.read_bytes().decode("utf-8", "replace").strip()
        for root in folder.parents:
            for run in RunFolder.all(root / ".influencerai" / "runs"):
                with suppress(CheckpointError):
                    if run_id[:8] in run.path.name and run.spec.id == run_id:
                        return run
    raise CheckpointError(
        f"{path} belongs to no run.",
        remedy="Name a run's folder in .influencerai/runs, its output folder, or a LoRA file in the latter.",
    )


def _root_of(runs_dir: Path) -> Path:
    """The project's folder, which holds `.influencerai/runs`."""
    return _resolve(runs_dir).parent.parent


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _resolve(output_dir: Path) -> Path:
    try:
        return output_dir.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links is a RuntimeError until Python 3.13
        raise ExportError(
            f"The output folder {output_dir} cannot be made: {error}.", remedy="Choose another outputPath."
        ) from error
