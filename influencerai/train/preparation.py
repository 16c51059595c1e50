"""Preparation: from a config and a folder to the frozen TrainingSpec."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from influencerai.domain import LoraConfig, ModelSpec, TrainingSpec
from influencerai.domain.output_path import output_name
from influencerai.domain.training_options import TrainingOptions
from influencerai.errors import ModelError, ValidationError
from influencerai.imageset import ImageSetReport, inspect_imageset, listed, samples
from influencerai.planning import BatchPlan
from influencerai.settings import Settings
from influencerai.train.base_model import BaseModel, find_base_model
from influencerai.train.device import execution_plan
from influencerai.train.family import Family, load_family
from influencerai.train.optimizer import usable_optimizer


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
    family = load_family(base.family)
    optimizer, optimizer_warnings = usable_optimizer(config.options.optimizer)
    options = config.options.model_copy(update={"optimizer": optimizer})
    plan, device_warnings = execution_plan(
        config, device=settings.device, threads=settings.usable_threads, deterministic=settings.deterministic
    )
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
        *_model_warnings(spec, base, family),
        *optimizer_warnings,
        *device_warnings,
        *report.summary,
        *BatchPlan(spec).warnings,
    )
    return Preparation(spec=spec, report=report, base=base, warnings=warnings)


def _option_warnings(options: TrainingOptions) -> list[str]:
    found = []
    if options.optimizer == "ScheduleFreeAdamW":
        if options.lr_scheduler != "constant":
            found.append(f"ScheduleFreeAdamW has no use for lrScheduler {options.lr_scheduler}: the rate is constant.")
        if options.ema:
            found.append("ScheduleFreeAdamW averages the weights itself: ema is off.")
    if options.optimizer == "Prodigy" and options.text_encoder_learning_rate is not None:
        found.append("Prodigy adapts one rate for all: textEncoderLearningRate has no effect.")
    return found


def _model_warnings(spec: TrainingSpec, base: BaseModel, family: Family) -> list[str]:
    """What the base model makes of the config and the captions."""
    found = []
    own, resolution = family.own_size(base), spec.config.resolution
    if not 0.75 * own <= resolution <= 2 * own:
        found.append(f"'{spec.model.name}' draws {own} pixels a side: resolution {resolution} will train it badly.")
    if spec.model.zero_terminal_snr and spec.model.prediction_type == "epsilon":
        found.append(
            "zeroTerminalSnr leaves no noise to predict at the last timestep: set predictionType v_prediction."
        )
    captions = sorted({sample.caption for sample in spec.samples})
    limit, lengths = family.caption_lengths(base, captions)
    cut = {caption for caption, length in zip(captions, lengths, strict=True) if length > limit}
    if paths := [sample.path for sample in spec.samples if sample.caption in cut]:
        found.append(f"Captions beyond {limit} tokens are cut there: {listed(paths)}.")
    return found


def check_model(spec: TrainingSpec, base: BaseModel) -> None:
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
