"""Resolve: the one way from a config, images, a base model and a device to a TrainingSpec, without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from influencerai.domain import LoraConfig, ModelSpec, SampleSpec, TrainingSpec
from influencerai.domain.output_path import check_output_name, output_name
from influencerai.domain.training_options import Optimizer
from influencerai.errors import ValidationError
from influencerai.training_plan.batches import Outline, TrainingPlan
from influencerai.training_plan.cpu_time import cpu_time_warnings
from influencerai.training_plan.execution import DeviceFacts, execution_plan
from influencerai.training_plan.exposure import chosen_exposure
from influencerai.training_plan.findings import spec_warnings


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of a base model that a training depends on."""

    spec: ModelSpec
    own_size: int
    """The model's native image size, in pixels per side."""
    denoiser_parameters: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResolvedTraining:
    """A spec, its training plan, and warnings about both."""

    spec: TrainingSpec
    plan: TrainingPlan
    warnings: tuple[str, ...]


def resolve(
    config: LoraConfig,
    samples: Sequence[SampleSpec],
    *,
    model: ModelFacts,
    device: DeviceFacts,
    optimizer: Optimizer,
    threads: int,
    deterministic: bool = True,
    world_size: int = 1,
) -> ResolvedTraining:
    """The spec of a training of `config` on `samples`.

    Args:
        config: what to train; the seed is one of its options.
        samples: the images, at least one.
        model: the base model.
        device: what executes the training, `world_size` of them side by side.
        optimizer: the one that is used, which may stand in for the configured one.
        threads: of one operation on the CPU.
        deterministic: whether a GPU uses kernels that give the same bytes every time.
        world_size: processes that share each batch.

    Raises:
        ValidationError: names the fields of options that contradict each other, `outputPath` where its last part
            cannot name a file, or SOURCE_DATE_EPOCH where it is not a time.
    """
    options = config.options.model_copy(update={"optimizer": optimizer})
    config, options = chosen_exposure(config, options, samples)
    execution, execution_warnings = execution_plan(
        config, device, threads=threads, deterministic=deterministic, world_size=world_size
    )
    spec = TrainingSpec(
        config=config,
        options=options,
        model=model.spec,
        samples=tuple(samples),
        plan=execution,
        output_name=_output_name(config),
        created_at=_creation_time(),
    )
    plan = TrainingPlan(spec)
    warnings = (
        *model.warnings,
        *spec_warnings(spec, own_size=model.own_size),
        *execution_warnings,
        *plan.warnings,
        *cpu_time_warnings(
            execution,
            family=spec.model.family,
            resolution=config.resolution,
            images=plan.total_images,
            denoiser_parameters=model.denoiser_parameters,
        ),
    )
    return ResolvedTraining(spec=spec, plan=plan, warnings=warnings)


def outline(
    config: LoraConfig,
    samples: Sequence[SampleSpec],
    *,
    family: str | None,
    device: DeviceFacts,
    threads: int,
    world_size: int = 1,
) -> tuple[TrainingPlan | None, tuple[str, ...]]:
    """The plan of a training whose base model or images cannot be used yet, and the warnings that are known so far.

    The plan is None where there are no images. `family` is the base model's, where it is known.

    Raises:
        ValidationError: as `resolve`.
    """
    execution, execution_warnings = execution_plan(config, device, threads=threads, world_size=world_size)
    warnings = [*config.warnings, *execution_warnings]
    if not samples:
        return None, tuple(warnings)
    config, options = chosen_exposure(config, config.options, samples)
    plan = TrainingPlan(Outline(config=config, options=options, samples=samples))
    warnings += plan.warnings
    if family is not None:
        warnings += cpu_time_warnings(execution, family=family, resolution=config.resolution, images=plan.total_images)
    return plan, tuple(warnings)


def _output_name(config: LoraConfig) -> str:
    try:
        return check_output_name(output_name(config))
    except ValueError as error:
        raise ValidationError(field_errors={"outputPath": [str(error)]}) from error


def _creation_time() -> datetime:
    """The time in whole milliseconds; SOURCE_DATE_EPOCH replaces it, so that builds can be reproduced."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        errors = {"SOURCE_DATE_EPOCH": ["Input should be seconds since 1970, such as 1700000000"]}
        raise ValidationError("The environment has a value that cannot be used", field_errors=errors) from error
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
