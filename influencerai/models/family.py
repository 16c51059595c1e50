"""Family: one kind of base model's functions for the training loop. Third parties register theirs by entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from influencerai.domain import ModelSpec
from influencerai.domain.training_options import TargetModules
from influencerai.errors import ModelError

if TYPE_CHECKING:
    from influencerai.models.loadable_model import LoadableModel
    from influencerai.models.objective import Objective

Conditioning = dict[str, Tensor]
"""An encoded caption: named tensors, batch first in a batch, without the batch axis in the cache."""

ENTRY_POINT_GROUP = "influencerai.families"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of the samples of one batch, in pixels; every tensor is int64 [batch, 2] as (height, width).

    `original` is the image's size before resizing, `crop` the top-left corner (top, left) of what was kept of the
    resized image, `target` the size that is trained.
    """

    original: Tensor
    crop: Tensor
    target: Tensor


class ImageEncoder(Protocol):
    """Pixels to latents, one image per call: a batch would change the bytes of the result."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode float32 pixels [3, height, width] in -1..1 to (mean, std) of the posterior.

        Both are float32 [channels, height / factor, width / factor] on the CPU, in the denoiser's own scale.
        """
        ...


class TextConditioner(Protocol):
    """Captions to conditioning. An nn.Module that holds the text encoders under their component names."""

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids per text encoder, int64 [batch, tokens], padded and cut to the encoder's length."""
        ...

    def __call__(self, tokens: Mapping[str, Tensor]) -> Conditioning:
        """Conditioning of a batch of token ids; differentiable with respect to the text encoders."""
        ...

    def components(self) -> dict[str, nn.Module]:
        """The text encoders by component name, such as {"text_encoder": ...}."""
        ...


class Family(Protocol):
    """One kind of base model. Stateless: everything it needs comes as an argument."""

    name: str
    """Registered name, such as "sd15"."""
    denoiser_component: str
    """Component name of the denoiser, such as "unet"."""
    text_components: tuple[str, ...]
    """Component names of the text encoders."""
    ss_base_model_version: str
    """kohya's name of the base, such as "sd_v1"."""
    modelspec_architecture: str
    """ModelSpec's name of the architecture, without the "/lora"."""

    def load_image_encoder(self, base: LoadableModel, *, device: torch.device) -> ImageEncoder:
        """The VAE's encoder in float32 (SDXL's overflows in half precision)."""
        ...

    def load_conditioner(self, base: LoadableModel, *, device: torch.device, dtype: torch.dtype) -> TextConditioner: ...

    def load_denoiser(self, base: LoadableModel, *, device: torch.device, dtype: torch.dtype) -> nn.Module: ...

    def empty_denoiser(self, base: LoadableModel) -> nn.Module:
        """The denoiser on the meta device: its modules and shapes without weights."""
        ...

    def enable_gradient_checkpointing(self, denoiser: nn.Module) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        ...

    def side_multiple(self, base: LoadableModel) -> int:
        """Every side of a training image must be a multiple of this many pixels."""
        ...

    def own_size(self, base: LoadableModel) -> int:
        """Native resolution of the base model: pixels per side."""
        ...

    def caption_lengths(self, base: LoadableModel, captions: Sequence[str]) -> tuple[int, list[int]]:
        """Tokens that the text encoder takes, and tokens of each caption."""
        ...

    def objective(self, base: LoadableModel, spec: ModelSpec, *, device: torch.device) -> Objective:
        """The training objective: prediction type, noise schedule and loss weights."""
        ...

    def denoise(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        geometry: Geometry,
    ) -> Tensor:
        """The denoiser's prediction [batch, channels, height, width] for noisy latents of the same shape."""
        ...

    def lora_targets(self, component: str, module: nn.Module, targets: TargetModules) -> list[str]:
        """Paths of the Linear and Conv2d modules inside `module` that get an adapter, in module order."""
        ...

    def kohya_key(self, component: str, path: str) -> str:
        """Key of one adapted module in the kohya layout, without `.lora_down.weight` and the like."""
        ...

    def sampling_scheduler(self, base: LoadableModel) -> Any:
        """The diffusers scheduler for sampling, set to the prediction type of `base`."""
        ...

    def pipeline(self, base: LoadableModel, *, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """A diffusers pipeline for sampling, made of `components` and, for the others, the base's."""
        ...


def load_family(name: str) -> Family:
    """The family registered as `name`.

    Raises:
        ModelError: when there is none.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise ModelError(f"There is no model family '{name}'.", remedy=f"Known families: {', '.join(sorted(found))}.")
    family: Family = found[name].load()()
    return family
