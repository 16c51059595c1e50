"""Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from influencerai.models import kohya_keys
from influencerai.models.families.unet_family import PROMPT_EMBEDS, ClipConditioner, UNetFamily
from influencerai.models.family import Conditioning, Geometry
from influencerai.models.loadable_model import LoadableModel


class Sd15Conditioner(ClipConditioner):
    """CLIP-L's last hidden states after its final layer norm, as StableDiffusionPipeline takes them."""

    def forward(self, tokens: Mapping[str, Tensor]) -> Conditioning:
        """`prompt_embeds` [batch, tokens, width], in the encoder's precision."""
        return {PROMPT_EMBEDS: self.get_submodule("text_encoder")(tokens["text_encoder"])[0]}


class StableDiffusion15(UNetFamily):
    """Stable Diffusion 1.x and models of its shape."""

    name = "sd15"
    text_components: tuple[str, ...] = ("text_encoder",)
    ss_base_model_version = "sd_v1"
    modelspec_architecture = "stable-diffusion-v1"
    conditioner_class = Sd15Conditioner
    kohya_prefixes: ClassVar[Mapping[str, str]] = {"text_encoder": "lora_te"}

    def _unet_key(self, path: str) -> str:
        return kohya_keys.unet_sd15(path)

    def _added_conditions(
        self, conditioning: Conditioning, geometry: Geometry, *, dtype: torch.dtype
    ) -> dict[str, Tensor] | None:
        return None

    def _pipeline(self, base: LoadableModel, components: dict[str, Any]) -> Any:
        pipeline: Any = StableDiffusionPipeline
        return pipeline(**components, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
