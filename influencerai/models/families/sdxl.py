"""Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from influencerai.models import kohya_keys
from influencerai.models.families.unet_family import (
    POOLED_PROMPT_EMBEDS,
    PROMPT_EMBEDS,
    ClipConditioner,
    UNetFamily,
)
from influencerai.models.family import Conditioning, Geometry
from influencerai.models.loadable_model import LoadableModel


class SdxlConditioner(ClipConditioner):
    """Penultimate hidden states of CLIP-L and OpenCLIP bigG side by side, and bigG's pooled projection."""

    def forward(self, tokens: Mapping[str, Tensor]) -> Conditioning:
        """`prompt_embeds` [batch, tokens, width + width 2] and `pooled_prompt_embeds` [batch, projection]."""
        first = self.get_submodule("text_encoder")(tokens["text_encoder"], output_hidden_states=True)
        second = self.get_submodule("text_encoder_2")(tokens["text_encoder_2"], output_hidden_states=True)
        return {
            PROMPT_EMBEDS: torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1),
            POOLED_PROMPT_EMBEDS: second.text_embeds,
        }


class StableDiffusionXL(UNetFamily):
    """Stable Diffusion XL base 1.0 and models of its shape."""

    name = "sdxl"
    text_components: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    ss_base_model_version = "sdxl_base_v1-0"
    modelspec_architecture = "stable-diffusion-xl-v1-base"
    conditioner_class = SdxlConditioner
    kohya_prefixes: ClassVar[Mapping[str, str]] = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}

    def _unet_key(self, path: str) -> str:
        return kohya_keys.unet_sdxl(path)

    def _added_conditions(
        self, conditioning: Conditioning, geometry: Geometry, *, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        pooled = conditioning[POOLED_PROMPT_EMBEDS].to(dtype)
        # Sizes stay in float32: bfloat16 would round 1023 to 1024.
        sizes = torch.cat([geometry.original, geometry.crop, geometry.target], dim=1)
        return {"text_embeds": pooled, "time_ids": sizes.to(pooled.device, torch.float32)}

    def _pipeline(self, base: LoadableModel, components: dict[str, Any]) -> Any:
        zeros = base.pipeline_config.get("force_zeros_for_empty_prompt", True)
        pipeline: Any = StableDiffusionXLPipeline
        return pipeline(**components, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
