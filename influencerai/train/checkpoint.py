"""Checkpoint: the resumable state of a run, safetensors with one JSON document in its header, never pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from influencerai import artifacts
from influencerai.errors import CheckpointError

KEPT = 2
"""States kept: if the newest cannot be read, the one before can."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
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

    def save(self, folder: Path) -> Path:
        """Write the state under its step, then delete all but the newest two."""
        groups = {"adapter": self.adapter, "export": self.export, "optimizer": self.optimizer}
        tensors = {
            f"{group}/{name}": tensor.detach().cpu().contiguous()
            for group, members in groups.items()
            for name, tensor in members.items()
        }
        document = {
            "spec_id": self.spec_id,
            "step": self.step,
            "epoch": self.epoch,
            "at_epoch_end": self.at_epoch_end,
            "elapsed_seconds": self.elapsed_seconds,
            "epoch_loss": self.epoch_loss,
            "scalars": self.scalars,
        }
        body = safetensors.torch.save(tensors)
        metadata = {"state": json.dumps(document), "sha256": artifacts.model_hash(body)}
        path = folder / f"state-{self.step:08d}.safetensors"
        artifacts.write_atomic(path, artifacts.canonical_safetensors(body, metadata))
        for old in list_checkpoints(folder)[:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a state back.

        Raises:
            CheckpointError: torn, altered or of another format.
        """
        try:
            data = path.read_bytes()
            metadata, _ = artifacts.read_safetensors_header(path, error=CheckpointError)
            if artifacts.model_hash(data) != metadata["sha256"]:
                raise CheckpointError(f"The state {path} is damaged: its content does not match its hash.")
            document = json.loads(metadata["state"])
            tensors = safetensors.torch.load(data)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"The state {path} cannot be read: {error}") from error
        groups: dict[str, dict[str, Tensor]] = {"adapter": {}, "export": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor
        loss_sum, loss_count = document.pop("epoch_loss")
        return cls(
            **document,
            epoch_loss=(loss_sum, loss_count),
            adapter=groups["adapter"],
            export=groups["export"],
            optimizer=groups["optimizer"],
        )


def list_checkpoints(folder: Path) -> list[Path]:
    """State files in `folder`, oldest first."""
    return sorted(folder.glob("state-*.safetensors"))


def load_newest(folder: Path, *, spec_id: str) -> Checkpoint | None:
    """The newest readable state of the run, or None; a damaged one is passed over for the one before.

    Raises:
        CheckpointError: a state belongs to another spec, or there are states and none can be read.
    """
    failures: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = Checkpoint.load(path)
        except CheckpointError as error:
            failures.append(error.message)
            continue
        if checkpoint.spec_id != spec_id:
            raise CheckpointError(f"The state {path} belongs to another run.", remedy="Start a new run.")
        return checkpoint
    if failures:
        raise CheckpointError(" ".join(failures), remedy="Start a new run without resuming.")
    return None
