"""The pre-flight itself: dataset, base model and options looked at as a job does, and every fault collected."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pydantic

from influencerai.basemodel import BaseModel, find_base_model, unet_size
from influencerai.basemodel.search import find_local, hub_id_of
from influencerai.domain import ExecutionPlan, LoraConfig, SampleSpec, TrainingSpec
from influencerai.domain.output_path import output_name
from influencerai.domain.training_options import Optimizer
from influencerai.errors import InfluencerAIError, ModelError
from influencerai.imageset import inspect_imageset, samples
from influencerai.imageset.decoding import Decoding
from influencerai.planning import BatchPlan, Outline, estimate, execution_plan, spec_warnings
from influencerai.planning.execution import OPTIMIZER_MODULES
from influencerai.preflight.device import AssumedDevice, assumed_device
from influencerai.preflight.report import BucketUse, MemoryEstimate, PlanSummary, Preflight, TimeEstimate
from influencerai.settings import Settings


def preflight(
    config: LoraConfig,
    dataset_dir: Path,
    *,
    settings: Settings,
    as_path: bool,
    device: AssumedDevice | None = None,
    throughput: float | None = None,
    decoding: Decoding | None = None,
) -> Preflight:
    """What a job with this config on that folder would do, need and fail on. Nothing is downloaded or written.

    Bad data is never raised, it stands in the report. Left to the job are what needs torch: whether captions are
    longer than the text encoder reads, and whether each tensor of a single-file model is there. The base model's
    files are hashed, which takes seconds for large ones, once per process.

    Args:
        config: what to train.
        dataset_dir: the folder of images.
        settings: of the machine that this runs on.
        as_path: whether the model's name may be a path; not for a name that a stranger chose.
        device: what the job will run on; by default this machine's, as far as it shows without torch.
        throughput: images per second of earlier jobs of the same family and resolution.
        decoding: limits that a process with several inspections shares.
    """
    device = device or assumed_device(settings.device)
    errors: list[str] = []
    warnings: list[str] = []
    images: tuple[SampleSpec, ...] = ()
    base: BaseModel | None = None
    spec: TrainingSpec | None = None
    batches: BatchPlan | None = None
    memory: MemoryEstimate | None = None

    report = inspect_imageset(
        dataset_dir,
        trigger_word=config.options.trigger_word,
        resolution=config.resolution,
        max_pixels=settings.max_image_pixels,
        decoding=decoding,
    )
    with _noted(errors):
        images = samples(report)
    with _noted(errors):
        base = _find_model(config, settings=settings, as_path=as_path, warnings=warnings)
    execution, device_warnings = execution_plan(
        config,
        device.facts,
        threads=settings.usable_threads,
        deterministic=settings.deterministic,
        world_size=min(config.options.gpus, device.count),
    )
    if images and base:
        with _noted(errors):
            spec = _spec(config, images, base=base, execution=execution)
            warnings += spec_warnings(spec, own_size=unet_size.own_size(base))
    if spec is None:
        warnings += config.warnings
    warnings += [*_optimizer_warnings(config.options.optimizer), *device.warnings, *device_warnings, *report.summary]
    if images:
        with _noted(errors):
            batches = BatchPlan(spec or Outline(config=config, options=config.options, samples=images))
            warnings += batches.warnings
    if spec and base and batches:
        with _noted(errors):
            memory = _memory(spec, base)
    return Preflight(
        ok=not errors,
        errors=tuple(errors),
        warnings=tuple(warnings),
        dataset=report,
        spec=spec if batches else None,
        plan=_summary(batches) if batches else None,
        memory=memory or MemoryEstimate(basis="Nothing is known of the memory without a dataset and a base model."),
        time=_time(batches, throughput),
        device=device,
    )


@contextmanager
def _noted(errors: list[str]) -> Iterator[None]:
    """Write down what a job would fail on."""
    try:
        yield
    except (InfluencerAIError, OSError) as error:
        errors.append(str(error))
    except pydantic.ValidationError as error:  # the one field of a spec that an accepted config can spoil
        errors += [f"outputPath: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()]


def _find_model(config: LoraConfig, *, settings: Settings, as_path: bool, warnings: list[str]) -> BaseModel | None:
    """The base model as it lies here, or None where the job would download it.

    Raises:
        ModelError: the job would fail on it.
    """
    name, folders = config.model_name, settings.models_dirs
    try:
        return find_base_model(name, models_dirs=folders, as_path=as_path)
    except ModelError:
        if not settings.allow_downloads or not hub_id_of(name) or find_local(name, folders, as_path=as_path):
            raise
    warnings.append(
        f"The base model '{name}' is not whole on this machine: the job downloads it first. Whether the hub has it "
        "and it can be used is not known yet."
    )
    return None


def _spec(
    config: LoraConfig, images: tuple[SampleSpec, ...], *, base: BaseModel, execution: ExecutionPlan
) -> TrainingSpec:
    options = config.options
    return TrainingSpec(
        config=config,
        options=options,
        model=base.spec(options, side_multiple=unet_size.side_multiple(base)),
        samples=images,
        plan=execution,
        output_name=output_name(config),
        created_at=datetime.now(UTC).replace(microsecond=0),
    )


def _optimizer_warnings(name: Optimizer) -> list[str]:
    """What a job would meet that finds the packages of this machine; nothing is told where torch is not here either."""
    package = OPTIMIZER_MODULES.get(name, "torch").partition(".")[0]
    if find_spec("torch") is None or find_spec(package):
        return []
    outcome = "uses AdamW, which needs more memory" if name == "AdamW8bit" else "fails"
    return [f"{name} needs the package {package}, which is not installed on this machine: a job without it {outcome}."]


def _summary(plan: BatchPlan) -> PlanSummary:
    sizes = Counter((plan.bucket(index).width, plan.bucket(index).height) for index in plan.training)
    return PlanSummary(
        images_per_epoch=plan.images_per_epoch,
        steps_per_epoch=plan.steps_per_epoch,
        epochs=plan.epochs,
        total_steps=plan.total_steps,
        save_epochs=plan.save_epochs,
        validation_images=len(plan.validation),
        buckets=tuple(
            BucketUse(width=width, height=height, images=count)
            for (width, height), count in sorted(sizes.items(), reverse=True)
        ),
    )


def _memory(spec: TrainingSpec, base: BaseModel) -> MemoryEstimate:
    cost = estimate(spec, denoiser_parameters=unet_size.count_parameters(base))
    return MemoryEstimate(gb=cost.memory_gb, parts=dict(cost.memory_parts_gb), basis=cost.basis)


def _time(plan: BatchPlan | None, throughput: float | None) -> TimeEstimate:
    if plan is None:
        return TimeEstimate(basis="The number of steps is not known.")
    seconds = plan.total_images / throughput if throughput and 0 < throughput < math.inf else math.inf
    if throughput is None or seconds == math.inf:
        return TimeEstimate(basis="There are no figures of earlier jobs of the same family and resolution.")
    return TimeEstimate(
        seconds=round(seconds, 1),
        basis=f"{plan.total_images} images at {throughput:g} a second, as in earlier jobs of the same family and "
        "resolution; encoding, samples and files take time besides.",
    )
