"""The training loop as diffusers' and PEFT's own examples write it: what ours is measured against.

The VAE and the text encoder run in every step, the adapter is added with PEFT's defaults, the loss is read in
every step. The samples, noise and timesteps are those of our run, so that the losses can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from influencerai.domain import TrainingSpec
from influencerai.lora.adapter import Adapter
from influencerai.models.draws import SampleDraws
from influencerai.models.family import Conditioning, Family
from influencerai.models.loadable_model import LoadableModel
from influencerai.models.precision import autocast, dtype_of
from influencerai.train.data.encoding import geometry, load_pixels
from influencerai.training_plan import TrainingPlan


class TextbookLoop:
    """`cached`: the same loop without the encoders in it, once it has met every sample."""

    def __init__(
        self,
        spec: TrainingSpec,
        plan: TrainingPlan,
        *,
        base: LoadableModel,
        family: Family,
        dataset_dir: Path,
        initial: Mapping[str, Tensor],
        cached: bool,
    ) -> None:
        self.step = 0
        self._spec, self._plan, self._family, self._dataset_dir = spec, plan, family, dataset_dir
        self._device = torch.device(spec.plan.device)
        dtype = dtype_of(spec.plan.precision)
        self._denoiser = _untyped(family.load_denoiser(base, device=self._device, dtype=dtype))
        self._vae = _untyped(base.load("vae").requires_grad_(False).to(self._device))
        self._conditioner: Any = family.load_conditioner(base, device=self._device, dtype=dtype)
        self._objective = family.objective(base, spec.model, device=self._device)
        targets = family.lora_targets("unet", self._denoiser, spec.options.target_modules)
        config = peft.LoraConfig(
            r=spec.config.network_dim, lora_alpha=spec.config.network_alpha, target_modules=targets
        )
        self._denoiser.add_adapter(config)
        if spec.plan.gradient_checkpointing:
            self._denoiser.enable_gradient_checkpointing()
        self._load(initial)
        self._parameters = [parameter for parameter in self._denoiser.parameters() if parameter.requires_grad]
        for parameter in self._parameters:
            parameter.data = parameter.data.float()
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=spec.config.learning_rate, weight_decay=spec.options.weight_decay
        )
        self._pixels: dict[int, Tensor] = {}
        self._latents: dict[int, tuple[Tensor, Tensor]] = {}
        self._conditioning: dict[str, Conditioning] = {}
        self._cached = cached

    def run_step(self) -> float:
        """One optimizer step; returns the loss."""
        planned = self._plan.step(self.step)
        total = 0.0
        for refs in planned.batches:
            draws = [SampleDraws(self._spec.options, self.step, ref) for ref in refs]
            mean, std = self._encode([ref.sample for ref in refs])
            posterior = torch.stack([draw.posterior(mean.shape[1:]) for draw in draws]).to(self._device)
            noise = torch.stack([draw.noise(mean.shape[1:]) for draw in draws]).to(self._device)
            loss = self._loss(draws, mean + std * posterior, noise) * len(refs) / planned.images
            torch.autograd.backward(loss)
            total += loss.item()
        nn.utils.clip_grad_norm_(self._parameters, self._spec.options.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        return total

    def _loss(self, draws: list[SampleDraws], latents: Tensor, noise: Tensor) -> Tensor:
        levels = torch.tensor([draw.timestep_draw for draw in draws], dtype=torch.float64, device=self._device)
        timesteps = self._objective.timesteps(levels)
        sizes = geometry(self._spec, self._plan, [draw.ref.sample for draw in draws])
        captions = [draw.caption(self._spec.samples[draw.ref.sample].caption) for draw in draws]
        noisy = self._objective.add_noise(latents, noise, timesteps)
        with autocast(self._spec.plan.precision, device=self._device):
            prediction = self._family.denoise(self._denoiser, noisy, timesteps, self._condition(captions), sizes)
        errors = (prediction.float() - self._objective.target(latents, noise, timesteps)).square().flatten(1).mean(1)
        weights = self._objective.weights(timesteps, min_snr_gamma=self._spec.options.min_snr_gamma)
        return (errors * weights).mean()

    def _encode(self, samples: list[int]) -> tuple[Tensor, Tensor]:
        """Posterior mean and std [batch, channels, height, width] in the denoiser's scale."""
        if not self._cached or any(sample not in self._latents for sample in samples):
            pixels = torch.stack([self._load_pixels(sample) for sample in samples]).to(self._device)
            with torch.no_grad():
                posterior = self._vae.encode(pixels).latent_dist
            shift, scale = self._vae.config.shift_factor or 0.0, self._vae.config.scaling_factor
            mean, std = (posterior.mean - shift) * scale, posterior.std * scale
            if not self._cached:
                return mean, std
            self._latents.update(zip(samples, zip(mean, std, strict=True), strict=True))
        means, stds = zip(*(self._latents[sample] for sample in samples), strict=True)
        return torch.stack(means), torch.stack(stds)

    def _load_pixels(self, sample: int) -> Tensor:
        if sample not in self._pixels:
            crop = self._plan.crop(sample)
            self._pixels[sample] = load_pixels(
                self._dataset_dir, self._spec.samples[sample], crop.resized, crop.box, max_pixels=10**9
            )
        return self._pixels[sample]

    def _condition(self, captions: list[str]) -> Conditioning:
        if self._cached and all(caption in self._conditioning for caption in captions):
            rows = [self._conditioning[caption] for caption in captions]
            return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        tokens = {name: ids.to(self._device) for name, ids in self._conditioner.tokenize(captions).items()}
        with torch.no_grad():
            batch: Conditioning = self._conditioner(tokens)
        for row, caption in enumerate(captions):
            self._conditioning[caption] = {name: tensor[row] for name, tensor in batch.items()}
        return batch

    def _load(self, initial: Mapping[str, Tensor]) -> None:
        """Start from the weights that our adapter starts from."""
        names = {"lora_down": "lora_A", "lora_up": "lora_B"}
        for name, tensor in initial.items():
            path, _, part = name.removeprefix("unet.").rpartition(".")
            layer = self._denoiser.get_submodule(path)
            getattr(layer, names[part])["default"].weight.data.copy_(tensor)


def _untyped(module: nn.Module) -> Any:
    """A diffusers module, whose methods type checkers take for tensors."""
    return module


def initial_weights(adapter: Adapter) -> dict[str, Tensor]:
    """Copies of the adapter's weights by name."""
    return {name: tensor.cpu().clone() for name, tensor in adapter.tensors().items()}
