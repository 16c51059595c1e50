"""Preparation: from a config and a folder to the frozen TrainingSpec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from influencerai.basemodel import unet_size
from influencerai.dataset import DatasetReport, inspect_dataset, listed, samples
from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.errors import ModelError
from influencerai.models.device import DeviceSetting, device_facts
from influencerai.models.family import Family, load_family
from influencerai.models.loadable_model import LoadableModel, find_loadable_model
from influencerai.train.optimizer import usable_optimizer
from influencerai.training_plan.resolve import ModelFacts, resolve


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A spec, and what was noticed on the way to it."""

    spec: TrainingSpec
    report: DatasetReport
    base: LoadableModel
    warnings: tuple[str, ...]


class PreparationSettings(Protocol):
    """What of `Settings` a preparation needs."""

    @property
    def models_dirs(self) -> Sequence[Path]: ...
    @property
    def allow_downloads(self) -> bool: ...
    @property
    def max_image_pixels(self) -> int: ...
    @property
    def device(self) -> DeviceSetting: ...
    @property
    def usable_threads(self) -> int: ...
    @property
    def deterministic(self) -> bool: ...


def prepare(
    config: LoraConfig,
    dataset_dir: Path,
    *,
    settings: PreparationSettings,
    as_path: bool = True,
    follow_links: bool = False,
    world_size: int = 1,
    report: DatasetReport | None = None,
) -> Preparation:
    """Inspect the dataset, find the base model, and resolve everything that decides the run.

    Without `as_path` the model's name, which a stranger chose, is no path. With `follow_links`, for a user of this
    machine, links in the dataset may leave it. `world_size` devices train side by side.
    `report` is an inspection of the dataset by this configuration that was made just now.

    Raises:
        DatasetError: the folder holds nothing that can be trained on.
        ModelError: the base model cannot be used.
        TrainingError: the device or the optimizer cannot be used.
        ValidationError: see `influencerai.training_plan.resolve`.
    """
    report = report or inspect_dataset(
        dataset_dir,
        trigger_word=config.options.trigger_word,
        resolution=config.resolution,
        max_pixels=settings.max_image_pixels,
        follow_links=follow_links,
    )
    report.raise_if_unusable()
    base = find_loadable_model(
        config.model_name, models_dirs=settings.models_dirs, allow_download=settings.allow_downloads, as_path=as_path
    )
    return prepare_on(config, report, base=base, settings=settings, world_size=world_size)


def prepare_on(
    config: LoraConfig,
    report: DatasetReport,
    *,
    base: LoadableModel,
    settings: PreparationSettings,
    world_size: int = 1,
) -> Preparation:
    """The spec of a run on images that were inspected and a base model that was found."""
    family = load_family(base.family)
    optimizer, optimizer_warnings = usable_optimizer(config.options.optimizer)
    model = ModelFacts(
        spec=base.spec(config.options, side_multiple=family.side_multiple(base)),
        own_size=family.own_size(base),
        denoiser_parameters=unet_size.count_parameters(base),
        warnings=base.warnings,
    )
    resolved = resolve(
        config,
        samples(report),
        model=model,
        device=device_facts(settings.device),
        optimizer=optimizer,
        threads=settings.usable_threads,
        deterministic=settings.deterministic,
        world_size=world_size,
    )
    captions = _caption_warnings(resolved.spec, base, family)
    warnings = (*optimizer_warnings, *report.summary, *resolved.warnings, *captions)
    return Preparation(spec=resolved.spec, report=report, base=base, warnings=warnings)


def _caption_warnings(spec: TrainingSpec, base: LoadableModel, family: Family) -> list[str]:
    """Captions that are longer than the text encoder reads."""
    captions = sorted({sample.caption for sample in spec.samples})
    limit, lengths = family.caption_lengths(base, captions)
    cut = {caption for caption, length in zip(captions, lengths, strict=True) if length > limit}
    paths = [sample.path for sample in spec.samples if sample.caption in cut]
    return [f"Captions beyond {limit} tokens are cut there: {listed(paths)}."] if paths else []


def check_model(spec: TrainingSpec, base: LoadableModel) -> None:
    """Refuse a base model other than the one that the run was made for.

    Raises:
        ModelError: the weights under the spec's model name have changed.
    """
    if base.fingerprint() != spec.model.fingerprint:
        raise ModelError(
            f"The weights of {base.path} are not those that this run was made for.", remedy="Start a new run."
        )
