"""The pre-flight check: inspects dataset, base model and options as a job does, and collects every fault."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from influencerai.basemodel import BaseModel, unet_size
from influencerai.dataset import inspect_dataset, samples
from influencerai.dataset.decoding import Decoding
from influencerai.domain import LoraConfig, SampleSpec, TrainingSpec
from influencerai.domain.training_options import Optimizer
from influencerai.errors import InfluencerAIError, ValidationError
from influencerai.preflight.device import AssumedDevice, OptimizerCheck, assumed_device, assumed_optimizer
from influencerai.preflight.names import alias_family, check_writable, find_model, noted
from influencerai.preflight.report import BucketUse, MemoryEstimate, PlanSummary, Preflight, TimeEstimate
from influencerai.settings import Settings
from influencerai.training_plan import TrainingPlan, estimate
from influencerai.training_plan.resolve import ModelFacts, ResolvedTraining, outline, resolve


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A pre-flight, and its faults as the errors that a run would end with."""

    preflight: Preflight
    faults: tuple[InfluencerAIError, ...]


def preflight(
    config: LoraConfig,
    dataset_dir: Path,
    *,
    settings: Settings,
    as_path: bool,
    follow_links: bool = False,
    device: AssumedDevice | None = None,
    usable_optimizer: OptimizerCheck = assumed_optimizer,
    throughput: float | None = None,
    decoding: Decoding | None = None,
) -> Preflight:
    """Report the steps, needs and faults of a job with this config and dataset. Nothing is downloaded or written.

    Bad data is never raised, it stands in the report. Left to the job are what needs torch: whether captions are
    longer than the text encoder reads, and whether each tensor of a single-file model is there. The base model's
    files are hashed, which takes seconds for large ones, once per process.

    Args:
        config: what to train.
        dataset_dir: the folder of images.
        settings: of the machine that this runs on.
        as_path: whether the model's name may be a path; not for a name that a stranger chose.
        follow_links: whether links in the dataset may leave it; not for a folder that a stranger filled.
        device: what the job will run on; by default this machine's, as far as it shows without torch.
        usable_optimizer: returns the optimizer that the job will use for a configured one, and warnings; by default
            the configured one.
        throughput: images per second of earlier jobs of the same family and resolution.
        decoding: limits that a process with several inspections shares.
    """
    return examine(
        config,
        dataset_dir,
        settings=settings,
        as_path=as_path,
        follow_links=follow_links,
        device=device,
        usable_optimizer=usable_optimizer,
        throughput=throughput,
        decoding=decoding,
    ).preflight


def examine(
    config: LoraConfig,
    dataset_dir: Path,
    *,
    settings: Settings,
    as_path: bool,
    follow_links: bool = False,
    output_dir: Path | None = None,
    device: AssumedDevice | None = None,
    usable_optimizer: OptimizerCheck = assumed_optimizer,
    throughput: float | None = None,
    decoding: Decoding | None = None,
) -> Examination:
    """See `preflight`; with `output_dir` it is also checked whether the run could write there."""
    device = device or assumed_device(settings.device)
    faults: list[InfluencerAIError] = []
    warnings: list[str] = []
    images: tuple[SampleSpec, ...] = ()
    base: BaseModel | None = None
    model: ModelFacts | None = None
    optimizer: Optimizer | None = None
    spec: TrainingSpec | None = None
    plan: TrainingPlan | None = None

    report = inspect_dataset(
        dataset_dir,
        trigger_word=config.options.trigger_word,
        resolution=config.resolution,
        max_pixels=settings.max_image_pixels,
        decoding=decoding,
        follow_links=follow_links,
    )
    with noted(faults):
        images = samples(report)
    with noted(faults):
        base = find_model(config.model_name, settings=settings, as_path=as_path, warnings=warnings)
        model = _model_facts(base, config) if base else None
    with noted(faults):
        if output_dir is not None:
            check_writable(output_dir)
    with noted(faults):
        optimizer, found = usable_optimizer(config.options.optimizer)
        warnings += found
    warnings += [*device.warnings, *report.summary]
    threads, world_size = settings.usable_threads, min(config.options.gpus, device.count)
    resolved: ResolvedTraining | None = None
    if images and model and optimizer:
        with noted(faults):
            resolved = resolve(
                config,
                images,
                model=model,
                device=device.facts,
                optimizer=optimizer,
                threads=threads,
                deterministic=settings.deterministic,
                world_size=world_size,
            )
    if resolved:
        spec, plan = resolved.spec, resolved.plan
        warnings += resolved.warnings
    else:
        family = base.family if base else alias_family(config.model_name)
        # An error of `resolve` is among the faults already.
        with suppress(InfluencerAIError) if images and model and optimizer else noted(faults):
            plan, known = outline(
                config, images, family=family, device=device.facts, threads=threads, world_size=world_size
            )
            warnings += known
    checked = Preflight(
        ok=not faults,
        errors=tuple(text for fault in faults for text in _texts(fault)),
        warnings=tuple(warnings),
        dataset=report,
        spec=spec,
        plan=_summary(plan) if plan else None,
        memory=_memory(spec, model),
        time=_time(plan, throughput),
        device=device,
    )
    return Examination(preflight=checked, faults=tuple(faults))


def _texts(fault: InfluencerAIError) -> list[str]:
    """The fault's message and remedy; of fields, a text for each."""
    fields = fault.field_errors if isinstance(fault, ValidationError) else {}
    return [f"{name}: {text}" for name, texts in fields.items() for text in texts] or [str(fault)]


def _model_facts(base: BaseModel, config: LoraConfig) -> ModelFacts:
    return ModelFacts(
        spec=base.spec(config.options, side_multiple=unet_size.side_multiple(base)),
        own_size=unet_size.own_size(base),
        denoiser_parameters=unet_size.count_parameters(base),
        warnings=base.warnings,
    )


def _summary(plan: TrainingPlan) -> PlanSummary:
    return PlanSummary(
        images_per_epoch=plan.images_per_epoch,
        steps_per_epoch=plan.steps_per_epoch,
        epochs=plan.epochs,
        total_steps=plan.total_steps,
        images_seen=plan.total_images,
        save_epochs=plan.save_epochs,
        validation_images=len(plan.validation),
        buckets=tuple(
            BucketUse(
                width=size.width,
                height=size.height,
                images=size.images,
                least_kept=round(size.least_kept, 3),
                mean_kept=round(size.mean_kept, 3),
            )
            for size in plan.sizes
        ),
    )


def _memory(spec: TrainingSpec | None, model: ModelFacts | None) -> MemoryEstimate:
    if spec is None or model is None:
        return MemoryEstimate(basis="Nothing is known of the memory without a dataset and a base model.")
    cost = estimate(spec, denoiser_parameters=model.denoiser_parameters)
    return MemoryEstimate(gb=cost.memory_gb, parts=dict(cost.memory_parts_gb), basis=cost.basis)


def _time(plan: TrainingPlan | None, throughput: float | None) -> TimeEstimate:
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
