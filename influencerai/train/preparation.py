"""Preparation: from a config and a folder to the frozen TrainingSpec."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from influencerai.basemodel import unet_size
from influencerai.dataset import DatasetReport, inspect_dataset, listed, samples
from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.domain.output_path import output_name
from influencerai.errors import ModelError, ValidationError
from influencerai.models.device import DeviceSetting, device_facts
from influencerai.models.family import Family, load_family
from influencerai.models.loadable_model import LoadableModel, find_loadable_model
from influencerai.train.optimizer import usable_optimizer
from influencerai.training_plan import TrainingPlan, chosen_exposure, execution_plan, spec_warnings
from influencerai.training_plan.cpu_time import cpu_time_warnings


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
    """Look at the dataset, then at the base model, and resolve everything that decides the run.

    Without `as_path` the model's name, which a stranger chose, is no path. With `follow_links`, for a user of this
    machine, links in the dataset may leave it. `world_size` devices train side by side.
    `report` is an inspection of the dataset by this configuration that was made just now.

    Raises:
        DatasetError: the folder holds nothing that can be trained on.
        ModelError: the base model cannot be used.
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
    return resolve(config, report, base=base, settings=settings, world_size=world_size)


def resolve(
    config: LoraConfig,
    report: DatasetReport,
    *,
    base: LoadableModel,
    settings: PreparationSettings,
    world_size: int = 1,
) -> Preparation:
    """The spec of a run on images that were looked at, over a base model that was found."""
    family = load_family(base.family)
    optimizer, optimizer_warnings = usable_optimizer(config.options.optimizer)
    images = samples(report)
    config, options = chosen_exposure(config, config.options.model_copy(update={"optimizer": optimizer}), images)
    plan, device_warnings = execution_plan(
        config,
        device_facts(settings.device),
        threads=settings.usable_threads,
        deterministic=settings.deterministic,
        world_size=world_size,
    )
    spec = TrainingSpec(
        config=config,
        options=options,
        model=base.spec(options, side_multiple=family.side_multiple(base)),
        samples=images,
        plan=plan,
        output_name=output_name(config),
        created_at=_now(),
    )
    batches = TrainingPlan(spec)
    warnings = (
        *base.warnings,
        *spec_warnings(spec, own_size=family.own_size(base)),
        *_caption_warnings(spec, base, family),
        *optimizer_warnings,
        *device_warnings,
        *report.summary,
        *batches.warnings,
        *cpu_time_warnings(
            plan,
            family=base.family,
            resolution=config.resolution,
            images=batches.total_images,
            denoiser_parameters=unet_size.count_parameters(base),
        ),
    )
    return Preparation(spec=spec, report=report, base=base, warnings=warnings)


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


def _now() -> datetime:
    """The time in whole milliseconds; SOURCE_DATE_EPOCH stands in for it, so that builds can be reproduced.

    Raises:
        ValidationError: SOURCE_DATE_EPOCH is no time.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        errors = {"SOURCE_DATE_EPOCH": ["Input should be seconds since 1970, such as 1700000000"]}
        raise ValidationError("The environment has a value that cannot be used", field_errors=errors) from error
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
