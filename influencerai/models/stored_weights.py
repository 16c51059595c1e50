"""Stored weights in torch: scales applied, and names of older versions read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""diffusers' names of a VAE's attention before version 0.12, and now."""
_OLD_PART = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")
_LDM_ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"} | {
    old: {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}[new] for old, new in _OLD_ATTENTION.items()
}
_LDM_PART = re.compile(r"(?<=\.mid\.attn_1\.)(.+)(?=\.(?:weight|bias)$)")


def dequantised(weight: Tensor, scale: Tensor, *, dtype: torch.dtype) -> Tensor:
    """`weight * scale`, computed in float32. `scale` holds one number, or one per row of the weight."""
    return (weight.float() * scale.float().reshape(-1, *[1] * (weight.ndim - 1))).to(dtype)


def with_current_attention(weights: Mapping[str, Value]) -> dict[str, Value]:
    """A diffusers VAE's tensors, its attention under today's names."""
    return {_OLD_PART.sub(lambda match: _OLD_ATTENTION[match[1]], name): value for name, value in weights.items()}


def with_ldm_attention(weights: Mapping[str, Value]) -> dict[str, Value]:
    """An LDM VAE's tensors, its attention under LDM's names where a tool wrote diffusers'."""
    return {
        _LDM_PART.sub(lambda match: _LDM_ATTENTION.get(match[1], match[1]), name): value
        for name, value in weights.items()
    }
