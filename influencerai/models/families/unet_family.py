"""Shared base of SD1.5 and SDXL: a UNet that denoises the latents of a VAE, driven by CLIP text encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor, nn

from influencerai.basemodel import unet_size
from influencerai.basemodel.components import TOKENIZERS
from influencerai.domain import ModelSpec
from influencerai.domain.training_options import TargetModules
from influencerai.models import kohya_keys, lora_targets
from influencerai.models.family import Conditioning, Geometry
from influencerai.models.loadable_model import LoadableModel
from influencerai.models.model_components import damage_errors, empty_module
from influencerai.models.objective import DiffusionObjective

PROMPT_EMBEDS = "prompt_embeds"
"""Conditioning: one vector per token, [batch, tokens, width]; the UNet's cross-attention reads it."""
POOLED_PROMPT_EMBEDS = "pooled_prompt_embeds"
"""Conditioning of SDXL: one vector per caption, [batch, width], added to the UNet's time embedding."""


class VaeEncoder:
    """The encoding half of an AutoencoderKL, in float32 on `device`."""

    def __init__(self, vae: Any, *, device: torch.device) -> None:
        del vae.decoder, vae.post_quant_conv
        self._vae = vae.requires_grad_(False).to(device)
        self._device = device
        self._shift = float(vae.config.shift_factor or 0.0)
        self._scale = float(vae.config.scaling_factor)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `ImageEncoder`."""
        with torch.no_grad():
            posterior = self._vae.encode(pixels[None].to(self._device, torch.float32)).latent_dist
        mean, std = (posterior.mean - self._shift) * self._scale, posterior.std * self._scale
        return mean[0].cpu(), std[0].cpu()


class ClipConditioner(nn.Module):
    """One or more CLIP text encoders with their tokenizers; subclasses define the conditioning."""

    def __init__(self, encoders: Mapping[str, nn.Module], tokenizers: Mapping[str, Any]) -> None:
        super().__init__()
        for name, encoder in encoders.items():
            self.add_module(name, encoder)
        self._tokenizers = dict(tokenizers)

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `TextConditioner`."""
        return {
            name: tokenizer(
                list(captions),
                padding="max_length",
                max_length=self._length(name),
                truncation=True,
                return_tensors="pt",
            ).input_ids
            for name, tokenizer in self._tokenizers.items()
        }

    def components(self) -> dict[str, nn.Module]:
        """See `TextConditioner`."""
        return {name: self.get_submodule(name) for name in self._tokenizers}

    def _length(self, name: str) -> int:
        """Tokens per caption; a tokenizer without a limit of its own gets its encoder's."""
        positions: Any = self.get_submodule(name).config
        return min(int(self._tokenizers[name].model_max_length), int(positions.max_position_embeddings))


class UNetFamily(ABC):
    """Base of the two families. Stateless; subclasses define how text and sizes condition the UNet."""

    name: str
    denoiser_component: str = "unet"
    text_components: tuple[str, ...]
    ss_base_model_version: str
    modelspec_architecture: str

    conditioner_class: ClassVar[type[ClipConditioner]]
    kohya_prefixes: ClassVar[Mapping[str, str]]
    """kohya's prefix of every text encoder."""

    def load_image_encoder(self, base: LoadableModel, *, device: torch.device) -> VaeEncoder:
        """See `Family`."""
        vae = base.load("vae")
        with damage_errors(base.configs / "vae"):
            return VaeEncoder(vae, device=device)

    def load_conditioner(self, base: LoadableModel, *, device: torch.device, dtype: torch.dtype) -> ClipConditioner:
        """See `Family`. The text encoders are frozen."""
        conditioner = self.conditioner_class(
            {name: base.load(name, dtype=dtype) for name in self.text_components},
            {name: base.load(TOKENIZERS[name]) for name in self.text_components},
        )
        return conditioner.requires_grad_(False).eval().to(device)

    def load_denoiser(self, base: LoadableModel, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """See `Family`. The UNet is frozen and in eval mode."""
        unet: nn.Module = base.load("unet", dtype=dtype)
        return unet.requires_grad_(False).to(device)

    def empty_denoiser(self, base: LoadableModel) -> nn.Module:
        """See `Family`."""
        with damage_errors(base.configs / "unet"):
            return empty_module("unet", base.config("unet"))

    def enable_gradient_checkpointing(self, denoiser: nn.Module) -> None:
        """See `Family`."""
        unet: Any = denoiser
        unet.enable_gradient_checkpointing()

    def side_multiple(self, base: LoadableModel) -> int:
        """See `Family`."""
        return unet_size.side_multiple(base)

    def own_size(self, base: LoadableModel) -> int:
        """See `Family`."""
        return unet_size.own_size(base)

    def caption_lengths(self, base: LoadableModel, captions: Sequence[str]) -> tuple[int, list[int]]:
        """See `Family`. Without the marks that CLIP puts around a caption, for which it reserves two places."""
        tokenizer = base.load(TOKENIZERS[self.text_components[0]])
        lengths = [len(ids) for ids in tokenizer(list(captions), add_special_tokens=False, verbose=False).input_ids]
        return int(tokenizer.model_max_length) - 2, lengths

    def objective(self, base: LoadableModel, spec: ModelSpec, *, device: torch.device) -> DiffusionObjective:
        """See `Family`."""
        with damage_errors(base.configs / "scheduler"):
            return DiffusionObjective(
                base.config("scheduler"),
                prediction_type=spec.prediction_type,
                zero_terminal_snr=spec.zero_terminal_snr,
                device=device,
            )

    def denoise(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        geometry: Geometry,
    ) -> Tensor:
        """See `Family`. Inputs are cast to the precision of the UNet's first weights."""
        dtype = next(denoiser.parameters()).dtype
        prediction: Tensor = denoiser(
            noisy.to(dtype),
            timesteps,
            encoder_hidden_states=conditioning[PROMPT_EMBEDS].to(dtype),
            added_cond_kwargs=self._added_conditions(conditioning, geometry, dtype=dtype),
            return_dict=False,
        )[0]
        return prediction

    def lora_targets(self, component: str, module: nn.Module, targets: TargetModules) -> list[str]:
        """See `Family`."""
        if component == self.denoiser_component:
            return lora_targets.unet_targets(module, targets)
        return lora_targets.text_encoder_targets(module, targets)

    def kohya_key(self, component: str, path: str) -> str:
        """See `Family`."""
        if component == self.denoiser_component:
            return self._unet_key(path)
        return kohya_keys.text_encoder(self.kohya_prefixes[component], path)

    def sampling_scheduler(self, base: LoadableModel) -> Any:
        """See `Family`. DPM-Solver++ 2M (arXiv:2211.01095) at Karras' noise levels (arXiv:2206.00364).

        With zero terminal SNR, where the levels have no upper end, timesteps are evenly spaced from the last one
        downwards (arXiv:2305.08891).
        """
        scheduler: Any = DPMSolverMultistepScheduler
        with damage_errors(base.configs / "scheduler"):
            return scheduler.from_config(
                base.config("scheduler"),
                prediction_type=base.prediction_type,
                rescale_betas_zero_snr=base.zero_terminal_snr,
                use_karras_sigmas=not base.zero_terminal_snr,
                timestep_spacing="trailing",
            )

    def pipeline(self, base: LoadableModel, *, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """See `Family`. Given components keep their precision; the base's VAE decodes in float32."""
        if "vae" not in components:
            components["vae"] = decoding_in_float32(base.load("vae"))
        for name in (*self.text_components, self.denoiser_component):
            if name not in components:
                components[name] = base.load(name, dtype=dtype)
        for name in self.text_components:
            components.setdefault(TOKENIZERS[name], base.load(TOKENIZERS[name]))
        components.setdefault("scheduler", self.sampling_scheduler(base))
        pipeline = self._pipeline(base, components).to(device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @abstractmethod
    def _unet_key(self, path: str) -> str: ...

    @abstractmethod
    def _added_conditions(
        self, conditioning: Conditioning, geometry: Geometry, *, dtype: torch.dtype
    ) -> dict[str, Tensor] | None: ...

    @abstractmethod
    def _pipeline(self, base: LoadableModel, components: dict[str, Any]) -> Any: ...


def decoding_in_float32(vae: Any) -> Any:
    """The float32 VAE, decoding latents of any precision even under autocast: SDXL's overflows in float16."""
    decode = vae.decode

    def decode_exactly(latents: Tensor, *args: Any, **options: Any) -> Any:
        with torch.autocast(latents.device.type, enabled=False):
            return decode(latents.float(), *args, **options)

    vae.decode = decode_exactly
    return vae
