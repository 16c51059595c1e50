"""How large a base model is."""

from __future__ import annotations

from influencerai.train.base_model import BaseModel
from influencerai.train.family import load_family


def count_parameters(base: BaseModel) -> int:
    """Parameters of the denoiser, counted on torch's meta device: no weights are read."""
    denoiser = load_family(base.family).empty_denoiser(base)
    return sum(parameter.numel() for parameter in denoiser.parameters())
