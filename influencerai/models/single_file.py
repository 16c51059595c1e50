"""Single-file models: loading a component, its names converted by diffusers' own converters.

Every tensor is accounted for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import single_file_utils
from safetensors import safe_open
from torch import Tensor, nn

from influencerai.basemodel.components import COMPONENTS, read_config
from influencerai.basemodel.quantization import component_tensors, unused_warning
from influencerai.basemodel.single_file import PREFIXES, SUPPORTED
from influencerai.basemodel.weight_file import read_header
from influencerai.errors import ModelError
from influencerai.models.model_components import MODULES, damage_errors, empty_module
from influencerai.models.stored_weights import dequantised, with_current_attention, with_ldm_attention

_PROJECTION = "text_projection"
_TRANSFORMED = ("in_proj_weight", "in_proj_bias", _PROJECTION)
"""Tensors of OpenCLIP that the converter splits or transposes, so that none of its results is the tensor itself."""


def check_tensors(path: Path, *, family: str, configs: Path) -> list[str]:
    """Convert names and shapes without data, so that a file that cannot be loaded is refused at the start.

    Returns warnings about tensors that are not used.

    Raises:
        ModelError: a tensor of a component is missing or of another shape.
    """
    header = read_header(path)
    warnings = []
    for component in COMPONENTS[family]:
        if component not in MODULES:
            continue
        prefix, config = PREFIXES[family][component], read_config(configs / family, component)
        names = component_tensors([header], component, prefix=prefix).weights
        weights = {name: torch.empty(header.shapes[name], device="meta") for name in sorted(names)}
        converted = _converted(
            path, component, weights, module=empty_module(component, config), prefix=prefix, config=config
        )
        warnings += unused_warning(path, component, _unused(component, weights, converted))
    return warnings


def load_module(path: Path, component: str, *, family: str, configs: Path, dtype: torch.dtype) -> nn.Module:
    """One component with its weights in `dtype`, in eval mode, on the CPU; only its tensors are read.

    Raises:
        ModelError: the file cannot be read or lacks a tensor of the component.
    """
    config = read_config(configs / family, component)
    module = empty_module(component, config)
    prefix = PREFIXES[family][component]
    stored = component_tensors([read_header(path)], component, prefix=prefix)
    with damage_errors(path), safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in stored.weights}
        for name, scale in stored.scales.items():
            weights[name] = dequantised(weights[name], file.get_tensor(scale), dtype=dtype)
    converted = _converted(path, component, weights, module=module, prefix=prefix, config=config)
    del weights
    state = {}
    for name in module.state_dict():
        state[name] = converted.pop(name).to(dtype).contiguous()
    module.load_state_dict(state, assign=True)
    return module.eval()


def _converted(
    path: Path,
    component: str,
    weights: Mapping[str, Tensor],
    *,
    module: nn.Module,
    prefix: str,
    config: Mapping[str, Any],
) -> dict[str, Tensor]:
    """The tensors of `module` out of `weights`, each of its shape."""
    expected = module.state_dict()
    try:
        converted = _convert(component, dict(weights), module=module, prefix=prefix, config=config)
        missing = [name for name in expected if converted.get(name) is None]
    except KeyError as error:
        converted, missing = {}, [str(error.args[0])]
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} tensors of the {component}, the first is '{missing[0]}'.",
            remedy="Download it again; pruned or distilled variants, such as SSD-1B, are not supported.",
        )
    for name, tensor in expected.items():
        if (shape := converted[name].shape) != tensor.shape:
            raise ModelError(
                f"{path} is of no known family: '{name}' of its {component} is of shape {tuple(shape)} "
                f"instead of {tuple(tensor.shape)}.",
                remedy=SUPPORTED,
            )
    return {name: converted[name] for name in expected}


def _convert(
    component: str, weights: dict[str, Tensor], *, module: nn.Module, prefix: str, config: Mapping[str, Any]
) -> dict[str, Tensor]:
    converters: Any = single_file_utils
    bare = with_current_attention({name.removeprefix(prefix): tensor for name, tensor in weights.items()})
    if module.state_dict().keys() <= bare.keys():  # some tools write diffusers' names into single files
        return bare
    if component == "unet":
        return dict(converters.convert_ldm_unet_checkpoint(weights, config))
    if component == "vae":
        return dict(converters.convert_ldm_vae_checkpoint(with_ldm_attention(weights), config))
    if component == "text_encoder":
        # Old files lack the `text_model.`, as does the CLIPTextModel of transformers 5.6.
        wrapper = "text_model." if hasattr(module, "text_model") else ""
        return {wrapper + name.removeprefix("text_model."): tensor for name, tensor in bare.items()}
    if (linear := weights.pop(f"{prefix}{_PROJECTION}.weight", None)) is not None:
        weights[prefix + _PROJECTION] = linear.T  # OpenCLIP multiplies from the other side than a Linear does
    return dict(converters.convert_open_clip_checkpoint(module, weights, prefix=prefix))


def _unused(component: str, weights: Mapping[str, Tensor], converted: Mapping[str, Tensor]) -> list[str]:
    """Names in the file of the tensors that no parameter is, or is a view of."""
    used = {id(tensor) for tensor in converted.values()}
    used |= {id(tensor._base) for tensor in converted.values() if tensor._base is not None}
    unused = [name for name, tensor in weights.items() if id(tensor) not in used]
    if component == "text_encoder_2":
        return [name for name in unused if not name.removesuffix(".weight").endswith(_TRANSFORMED)]
    if component == "text_encoder":  # its projection, which ComfyUI writes, belongs to no picture's conditioning
        return [name for name in unused if not name.removesuffix(".weight").endswith(_PROJECTION)]
    return unused
