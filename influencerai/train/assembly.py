"""Assembly: from a base model and a dataset to the encoded data and the weights under training."""

from __future__ import annotations

import torch

from influencerai.domain import TrainingSpec
from influencerai.lora.adapter import Adapter
from influencerai.models.device import free_memory
from influencerai.models.family import Family, TextConditioner
from influencerai.models.loadable_model import LoadableModel
from influencerai.models.precision import dtype_of
from influencerai.train.backend import RunContext
from influencerai.train.data.cache import TensorCache
from influencerai.train.data.encoding import encode_captions, encode_images, needed_variants
from influencerai.train.data.training_data import TrainingData
from influencerai.train.optimization import Optimization
from influencerai.train.ranks import Ranks
from influencerai.training_plan import TrainingPlan


def encode(
    spec: TrainingSpec, plan: TrainingPlan, context: RunContext, *, base: LoadableModel, family: Family
) -> TrainingData:
    """Encode the dataset through the cache; the encoders are freed before this returns."""
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
    free_memory()
    conditioning = None
    if not spec.options.train_text_encoder:
        conditioning = encode_captions(spec, captions, base=base, family=family, cache=cache, emit=context.emit)
        free_memory()
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
) -> tuple[Optimization, dict[str, torch.nn.Module], Adapter]:
    """Load the denoiser (and the text encoders, where they are trained) and put a new adapter on them.

    Also returns the modules that carry the adapter, by component name, and the adapter.
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
    optimization = Optimization(
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
    return optimization, components, adapter
