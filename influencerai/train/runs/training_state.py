"""TrainingState: what a run resumes from, a safetensors file with one JSON document in its header, never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
from torch import Tensor

from influencerai.errors import CheckpointError
from influencerai.train.runs.tensor_stream import read_tensors, tensors_sha256, write_tensors

KEPT = 2
"""States kept: if the newest cannot be read, the one before can."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that continuing after `step` optimizer steps needs; the random draws need nothing.

    `export` holds the weights that a LoRA file of this moment would hold, where they differ from `adapter`
    (EMA, schedule-free averaging).
    """

    spec_id: str
    step: int
    epoch: int = field(metadata={"doc": "Epochs that are complete."})
    at_epoch_end: bool
    elapsed_seconds: float
    epoch_loss: tuple[float, int]
    adapter: dict[str, Tensor]
    export: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    scalars: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the adapter's weights."""
        return tensors_sha256(self.adapter)

    def save(self, folder: Path) -> Path:
        """Write the state under its step, then delete all but the newest two."""
        groups = {"adapter": self.adapter, "export": self.export, "optimizer": self.optimizer}
        tensors = {f"{group}/{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
        state = json.dumps({name: getattr(self, name) for name in _Document.model_fields})
        path = folder / f"state-{self.step:08d}.safetensors"
        write_tensors(path, tensors, document=state)
        for old in list_states(folder)[:-KEPT]:
            with suppress(OSError):
                old.unlink()
        return path

    @classmethod
    def load(cls, path: Path) -> TrainingState:
        """Read a state back.

        Raises:
            CheckpointError: torn, altered or of another format.
        """
        try:
            state, tensors = read_tensors(path)
            document = _Document.model_validate(json.loads(state))
            groups: dict[str, dict[str, Tensor]] = {"adapter": {}, "export": {}, "optimizer": {}}
            for name, tensor in tensors.items():
                group, _, rest = name.partition("/")
                groups[group][rest] = tensor
        except (OSError, KeyError, ValueError, RecursionError) as error:
            raise CheckpointError(f"The state {path} cannot be read: {error}") from error
        return cls(
            **document.model_dump(),
            adapter=groups["adapter"],
            export=groups["export"],
            optimizer=groups["optimizer"],
        )


class _Document(pydantic.BaseModel):
    """What of a state is no tensor."""

    spec_id: str
    step: int
    epoch: int
    at_epoch_end: bool
    elapsed_seconds: float
    epoch_loss: tuple[float, int]
    scalars: dict[str, Any]


def list_states(folder: Path) -> list[Path]:
    """State files in `folder`, oldest first."""
    return sorted(folder.glob("state-*.safetensors"))


def epoch_ends(folder: Path, *, spec_id: str) -> Iterator[TrainingState]:
    """The readable states of the run that were saved at the end of an epoch, oldest first."""
    for path in list_states(folder):
        with suppress(CheckpointError):
            state = TrainingState.load(path)
            if state.at_epoch_end and state.spec_id == spec_id and state.epoch:
                yield state


def load_newest(folder: Path, *, spec_id: str) -> TrainingState | None:
    """The newest readable state of the run, or None; a damaged one is passed over for the one before.

    Raises:
        CheckpointError: a state belongs to another spec, or there are states and none can be read.
    """
    failures: list[str] = []
    for path in reversed(list_states(folder)):
        try:
            state = TrainingState.load(path)
        except CheckpointError as error:
            failures.append(error.message)
            continue
        if state.spec_id != spec_id:
            raise CheckpointError(f"The state {path} belongs to another run.", remedy="Start a new run.")
        return state
    if failures:
        raise CheckpointError(" ".join(failures), remedy="Start a new run without resuming.")
    return None
