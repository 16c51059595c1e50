"""Preparation: from a config and a folder to the frozen TrainingSpec."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from influencerai.domain import LoraConfig, ModelSpec, TrainingSpec
from influencerai.domain.training_options import TrainingOptions
from influencerai.imageset import ImageSetReport, inspect_imageset, samples
from influencerai.planning import BatchPlan
from influencerai.settings import Settings
from influencerai.train.base_model import BaseModel, find_base_model
from influencerai.train.device import execution_plan
from influencerai.train.family import load_family


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A spec, and what was noticed on the way to it."""

    spec: TrainingSpec
    report: ImageSetReport
    base: BaseModel
    warnings: tuple[str, ...]


def prepare(config: LoraConfig, dataset_dir: Path, *, settings: Settings) -> Preparation:
    """Look at the dataset, then at the base model, and resolve everything that decides the run.

    Raises:
        DatasetError: the folder holds nothing that can be trained on.
        ModelError: the base model cannot be used.
    """
    report = inspect_imageset(
        dataset_dir,
        trigger_word=config.options.trigger_word,
        resolution=config.resolution,
        max_pixels=settings.max_image_pixels,
    )
    report.raise_if_unusable()
    base = find_base_model(config.model_name, models_dirs=settings.models_dirs, allow_download=settings.allow_downloads)
    return resolve(config, report, base=base, settings=settings)


def resolve(config: LoraConfig, report: ImageSetReport, *, base: BaseModel, settings: Settings) -> Preparation:
    """The spec of a run on images that were looked at, over a base model that was found."""
    options = config.options
    family = load_family(base.family)
    plan, device_warnings = execution_plan(config, device=settings.device, threads=settings.threads)
    spec = TrainingSpec(
        config=config,
        options=options,
        model=ModelSpec(
            name=config.model_name,
            family=base.family,
            fingerprint=base.fingerprint(),
            prediction_type=options.prediction_type or base.prediction_type,
            zero_terminal_snr=base.zero_terminal_snr
            if options.zero_terminal_snr is None
            else options.zero_terminal_snr,
            side_multiple=family.side_multiple(base),
        ),
        samples=samples(report),
        plan=plan,
        output_name=output_name(config),
        created_at=_now(),
    )
    warnings = (
        *config.warnings,
        *_option_warnings(options),
        *device_warnings,
        *report.warnings,
        *BatchPlan(spec).warnings,
    )
    return Preparation(spec=spec, report=report, base=base, warnings=warnings)


def output_path(config: LoraConfig) -> str:
    """The config's output folder, or the default that its name gives."""
    path = (config.output_path or f"data/loras/{slug(config.name)}").rstrip("/")
    return path.removesuffix(".safetensors")


def output_name(config: LoraConfig) -> str:
    """The stem of the run's files: the last part of the output path."""
    return PurePosixPath(output_path(config)).name or slug(config.name)


def slug(text: str) -> str:
    """Lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "lora"


def _option_warnings(options: TrainingOptions) -> list[str]:
    found = []
    if options.optimizer == "ScheduleFreeAdamW":
        if options.lr_scheduler != "constant":
            found.append(f"ScheduleFreeAdamW has no use for lrScheduler {options.lr_scheduler}: the rate is constant.")
        if options.ema:
            found.append("ScheduleFreeAdamW averages the weights itself: ema is off.")
    return found


def _now() -> datetime:
    """The time in whole milliseconds; SOURCE_DATE_EPOCH stands in for it, so that builds can be reproduced."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
