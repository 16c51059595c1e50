"""Diffusers folders: loading a component."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from influencerai.basemodel.diffusers_folder import weight_files
from influencerai.errors import ModelError
from influencerai.train.model_components import MODULES, damage_errors


def load_module(folder: Path, component: str, *, dtype: torch.dtype) -> nn.Module:
    """One component with its weights in `dtype`, in eval mode, on the CPU.

    Raises:
        ModelError: the files cannot be read, or lack a tensor of the component.
    """
    variant, _ = weight_files(folder, component)
    with damage_errors(folder / component):
        module, report = MODULES[component].from_pretrained(
            folder,
            subfolder=component,
            variant=variant,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
        )
    if lacking := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise ModelError(
            f"{folder / component} does not fit its config.json: {len(lacking)} tensors are missing or of "
            f"another shape, the first is {lacking[0]}.",
            remedy="Download the model again.",
        )
    result: nn.Module = module.eval()
    return result
