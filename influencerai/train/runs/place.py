"""Run place: the folder that a run writes to, and the name of its files, beside runs of other characters."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.domain.output_path import RUN_MARKER, name_digest, output_path, output_path_of_run
from influencerai.errors import CheckpointError
from influencerai.train.runs.folder import RunFolder, find_run


def place_of(folder: RunFolder, *, config: LoraConfig, root: Path) -> Path:
    """Where a run writes that was found for `config`.

    Raises:
        CheckpointError: its spec cannot be read.
    """
    spec = folder.spec
    if config.output_path or spec.config.output_path:
        return root / output_path(config)
    return root / output_path_of_run(spec.config, output_name=spec.output_name)


def new_place(spec: TrainingSpec, *, root: Path) -> tuple[TrainingSpec, Path]:
    """Where a new run writes, and its spec, whose files have another name where another name's run has the folder.

    Several names give one slug, such as Zoe and Zoë: files and aliases of their LoRAs are told apart.
    """
    config = spec.config
    place = root / output_path(config)
    if config.output_path or not (place / RUN_MARKER).is_file():
        return spec, place
    with suppress(CheckpointError):
        if find_run(place).is_called_as(config) is False:
            name = f"{place.name}-{name_digest(config.name)}"
            return spec.model_copy(update={"output_name": name}), place.with_name(name)
    return spec, place
