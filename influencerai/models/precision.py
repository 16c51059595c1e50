"""Precision: the torch dtypes and autocast of the plan's names."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that frozen weights and cached text embeddings are held in."""
    return _DTYPES[precision]


def autocast(precision: str, *, device: torch.device) -> AbstractContextManager[object]:
    """Autocast for one forward pass; does nothing at fp32."""
    return torch.autocast(device.type, dtype=dtype_of(precision), enabled=precision != "fp32")
