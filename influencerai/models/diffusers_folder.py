"""Diffusers folders: loading a component."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from influencerai.basemodel.components import CLASSES, COMPONENTS, read_config
from influencerai.basemodel.diffusers_folder import weight_files
from influencerai.basemodel.quantization import component_tensors, unused_warning
from influencerai.basemodel.weight_file import read_header
from influencerai.errors import ModelError
from influencerai.models.model_components import MODULES, damage_errors, empty_module
from influencerai.models.stored_weights import dequantised, with_current_attention


def check_tensors(folder: Path, *, family: str) -> list[str]:
    """Warnings about weights that no module of a component has."""
    warnings = []
    for component in COMPONENTS[family]:
        if component not in CLASSES:
            continue
        headers = [read_header(file) for file in weight_files(folder, component)[1]]
        with damage_errors(folder / component):
            module = empty_module(component, read_config(folder, component))
        stored = _current_names(component_tensors(headers, component).weights)
        known = _current_names(module.state_dict())
        unused = [stored[name] for name in stored.keys() - known.keys() if not name.startswith("text_projection")]
        warnings += unused_warning(folder / component, component, unused)
    return warnings


def load_module(folder: Path, component: str, *, dtype: torch.dtype) -> nn.Module:
    """One component with its weights in `dtype`, in eval mode, on the CPU.

    Raises:
        ModelError: the files cannot be read, or lack a tensor of the component.
    """
    variant, files = weight_files(folder, component)
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
    with damage_errors(folder / component):
        _apply_scales(module, files, component)
    result: nn.Module = module.eval()
    return result


@torch.no_grad()
def _apply_scales(module: nn.Module, files: list[Path], component: str) -> None:
    """Multiply quantized parameters by the scales stored next to them in the files."""
    headers = [read_header(file) for file in files]
    scales = component_tensors(headers, component).scales
    if not scales:
        return
    parameters = {_current_name(name): parameter for name, parameter in module.named_parameters()}
    place = {name: header.path for header in headers for name in header.tensors}
    for name, scale in scales.items():
        parameter = parameters[_current_name(name)]
        with safe_open(place[scale], framework="pt") as file:
            parameter.copy_(dequantised(parameter, file.get_tensor(scale), dtype=parameter.dtype))


def _current_names(names: Iterable[str]) -> dict[str, str]:
    """The names by what they are called today, whichever version of diffusers and transformers wrote them."""
    return {_current_name(name): name for name in names}


def _current_name(name: str) -> str:
    (current,) = with_current_attention({name: None})
    return current.removeprefix("text_model.")
