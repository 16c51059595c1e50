"""BestEpoch: the epoch with the lowest validation loss, and the LoRA file that is nearest to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from influencerai.domain import TrainingSpec
from influencerai.train.runs.exporter import epoch_files
from influencerai.train.runs.history import Record


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    """Where the validation loss was lowest."""

    epoch: int
    loss: float
    file: Path
    file_epoch: int

    @property
    def sentence(self) -> str:
        """For people, such as "Validation was lowest at epoch 5 (0.1768): try me-epoch-5.safetensors first."."""
        near = "" if self.file_epoch == self.epoch else f", of epoch {self.file_epoch},"
        return f"Validation was lowest at epoch {self.epoch} ({self.loss:.4f}): try {self.file.name}{near} first."


def best_epoch(spec: TrainingSpec, validations: Iterable[Record], *, output_dir: Path, final: Path) -> BestEpoch | None:
    """The best epoch of a finished run by its validation records; None where nothing was held out.

    Of two epochs with the same loss, and of two files equally near, the earlier one: it is trained less.
    """
    losses = {int(record["epoch"]): float(record["loss"]) for record in validations}
    if not losses:
        return None
    epoch = min(losses, key=lambda number: (losses[number], number))
    files = {int(file.stem.rpartition("-")[2]): file for file in epoch_files(output_dir, spec)}
    files[spec.config.epochs] = final
    nearest = min(files, key=lambda number: (abs(number - epoch), number))
    return BestEpoch(epoch=epoch, loss=losses[epoch], file=files[nearest], file_epoch=nearest)
