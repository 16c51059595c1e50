"""The light check: what a command would be refused for, said within a second, before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from influencerai.cli.packages import check_train_packages
from influencerai.domain import LoraConfig
from influencerai.domain.output_path import output_path
from influencerai.errors import InfluencerAIError
from influencerai.imageset import ImageSetReport
from influencerai.preflight import examine, name_faults
from influencerai.settings import Settings


def check_training(config: LoraConfig, dataset: str | Path, *, settings: Settings) -> ImageSetReport:
    """Find everything that a training would be refused for as far as it shows without torch.

    Names come first, and the pictures are read only where all names are right. Returns their inspection.

    Raises:
        InfluencerAIError: the first fault, as the run would raise it; the other faults are its notes.
    """
    check_train_packages()
    folder, output = settings.root / dataset, settings.root / output_path(config)
    raise_faults(name_faults(config, folder, settings=settings, output_dir=output))
    found = examine(config, folder, settings=settings, as_path=True, output_dir=output)
    raise_faults(found.faults)
    return found.preflight.dataset


def raise_faults(faults: Sequence[InfluencerAIError]) -> None:
    """Raise the first fault with the others as its notes; nothing where there are none."""
    if faults:
        first, *others = faults
        for other in others:
            first.add_note(str(other))
        raise first
