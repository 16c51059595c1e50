"""The diffusers backend: encode, load, train, export; from the newest state if there is one."""

from __future__ import annotations

import errno
import gc
import time
from dataclasses import replace

import torch

from influencerai.domain import StageEvent, TrainingResult, TrainingSpec, WarningEvent
from influencerai.errors import StoppedError
from influencerai.lora.adapter import Adapter, LoraWeights
from influencerai.lora.file import FILE_DTYPE, Weights
from influencerai.lora.first_weights import read_first_weights
from influencerai.models.device import fixed_execution, memory_errors
from influencerai.models.family import Family, TextConditioner, load_family
from influencerai.models.loadable_model import LoadableModel, find_loadable_model
from influencerai.models.precision import dtype_of
from influencerai.train.backend import RunContext
from influencerai.train.data.cache import TensorCache
from influencerai.train.data.encoding import encode_captions, encode_images, needed_variants
from influencerai.train.data.training_data import TrainingData
from influencerai.train.loop import TrainingLoop
from influencerai.train.preparation import check_model
from influencerai.train.ranks import Ranks
from influencerai.train.runs.exporter import Exporter
from influencerai.train.runs.recorder import Recorder
from influencerai.train.runs.samples import draw_samples
from influencerai.train.runs.training_state import epoch_ends, load_newest
from influencerai.training_plan import TrainingPlan
from influencerai.training_plan.memory import smaller_images, smaller_setting

TRAINED_NOTHING = (
    "The training has learned nothing: the final file changes no picture. Raise learningRate (Prodigy wants 1), "
    "shorten the warm-up, leave maxGradNorm and minSnrGamma at their defaults, or train more steps."
)
STAYED_THE_SAME = TRAINED_NOTHING.replace(
    "the final file changes no picture", "the final file holds the weights that it started with"
)


class DiffusersBackend:
    """Trains with torch and diffusers, on one device in each rank."""

    name = "diffusers"

    def train(self, spec: TrainingSpec, context: RunContext) -> TrainingResult:
        remedy = smaller_setting(spec)
        with context.ranks.one_fate(), fixed_execution(spec.plan), memory_errors(spec.plan.device_name, remedy=remedy):
            return _train(spec, context)


def _train(spec: TrainingSpec, context: RunContext) -> TrainingResult:
    ranks = context.ranks
    context.emit(StageEvent(stage="checking"))
    base = find_loadable_model(context.model_name or spec.model.name, models_dirs=context.models_dirs)
    check_model(spec, base)
    base = replace(base, prediction_type=spec.model.prediction_type, zero_terminal_snr=spec.model.zero_terminal_snr)
    family = load_family(base.family)
    plan = TrainingPlan(spec)
    with memory_errors(spec.plan.device_name, remedy=smaller_images(spec)), ranks.first_ahead():
        data = encode(spec, plan, context, base=base, family=family)
    context.emit(StageEvent(stage="loading"))
    loop, components, adapter = build(spec, plan, base=base, family=family, data=data, ranks=ranks)
    state = load_newest(context.run_dir, spec_id=spec.id)
    if state:
        loop.restore(state)
    elif spec.origin:
        loop.start_from(
            read_first_weights(spec, context.run_dir, adapter=adapter, family=family), step=spec.origin.step
        )
    first = adapter.weights() if spec.origin and not state else {}
    _check_same_step(ranks.gather(loop.step))
    if not ranks.is_first:
        return _train_along(loop, plan, ranks)
    recorder = Recorder(spec, plan, context)
    exporter = Exporter(spec, plan, context, family=family)
    for past in epoch_ends(context.run_dir, spec_id=spec.id):
        with adapter.swapped(past.export or past.adapter):
            exporter.remember(adapter.weights(), step=past.step, epoch=past.epoch)

    def sample(epoch: int) -> None:
        draw_samples(spec, context, base=base, family=family, components=components, step=loop.step, epoch=epoch)
        _free_memory()

    def end_epoch(epoch: int) -> None:
        recorder.flush()
        if epoch in plan.validation_epochs:
            recorder.validated(loop.validation_loss(), step=loop.step, epoch=epoch)
        with loop.exported_weights():
            weights = adapter.weights()
            exporter.remember(weights, step=loop.step, epoch=epoch)
            if epoch in plan.save_epochs:
                exporter.write_epoch(weights, step=loop.step, epoch=epoch)
            if epoch in plan.sample_epochs:
                sample(epoch)

    if loop.step == 0 and plan.sample_epochs:
        sample(0)
    with recorder.recording(state), exporter.publishing_on_failure():
        context.emit(StageEvent(stage="training", done=loop.step, total=plan.total_steps))
        while loop.step < plan.total_steps:
            if ranks.agree(context.should_stop()):
                recorder.save(loop)
                raise _stopped(loop, plan)
            begun = time.monotonic()
            outcome = loop.run_step()
            recorder.add(outcome, step=loop.step, seconds=time.monotonic() - begun)
            epoch, within = divmod(loop.step, plan.steps_per_epoch)
            if within == 0:
                end_epoch(epoch)
            recorder.save_if_due(loop, at_epoch_end=within == 0, at_save_epoch=epoch in plan.save_epochs)

        recorder.save(loop)
        context.emit(StageEvent(stage="exporting"))
        with loop.exported_weights():
            weights = adapter.weights()
            lora_path = exporter.write_final(weights, step=loop.step)
    result = recorder.result(lora_path=lora_path, checkpoints=exporter.file_names())
    if failing := _learned_nothing(weights, first=first):
        context.emit(WarningEvent(message=failing))
        result = result.model_copy(update={"learned": False, "warnings": (*result.warnings, failing)})
    return ranks.say(result)


def _train_along(loop: TrainingLoop, plan: TrainingPlan, ranks: Ranks) -> TrainingResult:
    """What the ranks but the first do: the same steps and validations, and nothing else. Returns the first's result."""
    while loop.step < plan.total_steps:
        if ranks.agree(False):
            raise _stopped(loop, plan)
        loop.run_step()
        epoch, within = divmod(loop.step, plan.steps_per_epoch)
        if within == 0 and epoch in plan.validation_epochs:
            loop.validation_loss()
    result: TrainingResult = ranks.hear()
    return result


def _learned_nothing(weights: Weights, *, first: Weights) -> str | None:
    """The reason why these weights are no success: they change no picture, or none more than `first` did; else None.

    Both are compared in the precision of the file; `first` are those of another LoRA, and empty for a new adapter.
    """
    if not any(bool(torch.any(lora.up.to(FILE_DTYPE) != 0)) for lora in weights.values()):
        return TRAINED_NOTHING
    return STAYED_THE_SAME if first and all(_is_same(weights[key], first[key]) for key in weights) else None


def _is_same(one: LoraWeights, other: LoraWeights) -> bool:
    pairs = ((one.up, other.up), (one.down, other.down))
    return all(torch.equal(a.to(FILE_DTYPE), b.to(FILE_DTYPE)) for a, b in pairs)


def _check_same_step(steps: list[int]) -> None:
    """Refuse to go on from different states: a shared file system may show its newest file to one node first."""
    if len(set(steps)) > 1:
        raise OSError(errno.ESTALE, f"The ranks found states of different steps: {steps}")


def _stopped(loop: TrainingLoop, plan: TrainingPlan) -> StoppedError:
    return StoppedError(f"Stopped at step {loop.step} of {plan.total_steps}; the state is saved.")


def encode(
    spec: TrainingSpec, plan: TrainingPlan, context: RunContext, *, base: LoadableModel, family: Family
) -> TrainingData:
    """The dataset through the encoders, which are freed again."""
    cache = TensorCache(context.cache_dir, max_bytes=context.cache_max_bytes)
    images, captions = needed_variants(spec, plan)
    latents = encode_images(
        spec,
        images,
        plan=plan,
        dataset_dir=context.dataset_dir,
        base=base,
        family=family,
        cache=cache,
        max_pixels=context.max_image_pixels,
        emit=context.emit,
    )
    _free_memory()
    conditioning = None
    if not spec.options.train_text_encoder:
        conditioning = encode_captions(spec, captions, base=base, family=family, cache=cache, emit=context.emit)
        _free_memory()
    cache.prune()
    device = torch.device(spec.plan.device)
    return TrainingData(spec, plan, latents=latents, conditioning=conditioning, device=device)


def build(
    spec: TrainingSpec,
    plan: TrainingPlan,
    *,
    base: LoadableModel,
    family: Family,
    data: TrainingData,
    ranks: Ranks | None = None,
) -> tuple[TrainingLoop, dict[str, torch.nn.Module], Adapter]:
    """The loop over a freshly loaded denoiser (and text encoders, where they are trained) with a new adapter.

    Also returns the modules that carry the adapter, by component name.
    """
    device, dtype = torch.device(spec.plan.device), dtype_of(spec.plan.precision)
    denoiser = family.load_denoiser(base, device=device, dtype=dtype)
    if spec.plan.gradient_checkpointing:
        family.enable_gradient_checkpointing(denoiser)
    components = {family.denoiser_component: denoiser}
    conditioner: TextConditioner | None = None
    if spec.options.train_text_encoder:
        conditioner = family.load_conditioner(base, device=device, dtype=dtype)
        components.update(conditioner.components())
    adapter = Adapter(
        components,
        targets={
            name: family.lora_targets(name, module, spec.options.target_modules) for name, module in components.items()
        },
        rank=spec.config.network_dim,
        alpha=spec.config.network_alpha,
        seed=spec.seed,
    )
    loop = TrainingLoop(
        spec,
        plan,
        family=family,
        denoiser=denoiser,
        conditioner=conditioner,
        adapter=adapter,
        objective=family.objective(base, spec.model, device=device),
        data=data,
        ranks=ranks,
    )
    return loop, components, adapter


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
