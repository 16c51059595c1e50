"""The classes of a model's components, empty ones, and what a damaged one raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from influencerai.errors import InfluencerAIError, ModelError

MODULES: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
"""Class of every component that has weights."""


@contextmanager
def damage_errors(place: Path) -> Iterator[None]:
    """Turn what the libraries raise over a damaged component into a ModelError that names its place.

    Out-of-memory errors do not concern the component and pass unchanged.
    """
    try:
        yield
    except (InfluencerAIError, MemoryError, torch.OutOfMemoryError):
        raise
    # They raise whatever the fault brings up: OSError, KeyError, TypeError, RuntimeError, SafetensorError.
    except Exception as error:
        raise ModelError(
            f"{place} cannot be used, {type(error).__name__}: {error}", remedy="Download or copy the model again."
        ) from error


def empty_module(component: str, config: dict[str, Any]) -> nn.Module:
    """A component with its parameters on the meta device: names and shapes without memory."""
    with init_empty_weights():
        if component in ("unet", "vae"):
            module: nn.Module = MODULES[component].from_config(config)
        else:
            module = MODULES[component](CLIPTextConfig.from_dict(config))
    return module
