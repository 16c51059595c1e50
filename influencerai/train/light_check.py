"""The light check: what a command would be refused for, said within a second, before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from influencerai.domain import LoraConfig
from influencerai.domain.output_path import output_path
from influencerai.errors import InfluencerAIError, TrainingError
from influencerai.packages import check_train_packages
from influencerai.preflight import Preflight, examine, name_faults, noted
from influencerai.settings import Settings


def check_training(
    config: LoraConfig,
    dataset: str | Path,
    *,
    settings: Settings,
    backend: str = "diffusers",
    init_from: str | None = None,
    warnings: Sequence[str] = (),
    strict: bool = False,
) -> Preflight:
    """Find everything that a training would be refused for as far as it shows without torch.

    Names come first, and the pictures are read only where all names are right. With `strict`, `warnings` and those
    that are found are faults.

    Raises:
        InfluencerAIError: the first fault, as the run would raise it; the other faults are its notes.
    """
    check_train_packages()
    _check_backend(backend)
    folder, output = settings.root / dataset, settings.root / output_path(config)
    faults = name_faults(config, folder, settings=settings, output_dir=output)
    if init_from is not None:
        from influencerai.train.runs.lora_choice import choose_first_weights

        with noted(faults):
            choose_first_weights(settings.root / init_from, root=settings.root, rank=config.network_dim)
    raise_faults(faults)
    found = examine(config, folder, settings=settings, as_path=True, follow_links=True, output_dir=output)
    raise_faults(found.faults)
    if strict:
        refuse_warnings([*warnings, *found.preflight.warnings])
    return found.preflight


def _check_backend(name: str) -> None:
    """Refuse an unknown backend, as the trainer does.

    Raises:
        TrainingError: names the known ones.
    """
    known = {entry.name for entry in entry_points(group="influencerai.backends")}
    if name not in known:
        raise TrainingError(f"There is no backend '{name}'.", remedy=f"Known backends: {', '.join(sorted(known))}.")


def refuse_warnings(warnings: Sequence[str]) -> None:
    """Refuse a training that --strict forbids.

    Raises:
        TrainingError: there are warnings, which are its notes.
    """
    if not warnings:
        return
    count = "1 warning is an error" if len(warnings) == 1 else f"{len(warnings)} warnings are errors"
    error = TrainingError(f"{count} under --strict.", remedy="Change what they name, or leave --strict out.")
    for text in dict.fromkeys(warnings):
        error.add_note(f"  {text}")
    raise error


def raise_faults(faults: Sequence[InfluencerAIError]) -> None:
    """Raise the first fault with the others as its notes; nothing where there are none."""
    if faults:
        first, *others = faults
        for other in others:
            first.add_note(str(other))
        raise first
