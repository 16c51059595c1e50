"""Single-file models: loading a component, its names converted by diffusers' own converters.

Every tensor is accounted for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import single_file_utils
from safetensors import safe_open
from torch import Tensor, nn

from influencerai.basemodel.components import COMPONENTS, read_config
from influencerai.basemodel.single_file import PREFIXES, SUPPORTED
from influencerai.basemodel.weight_file import read_header
from influencerai.errors import ModelError
from influencerai.train.model_components import MODULES, damage_errors, empty_module

logger = logging.getLogger(__name__)


def check_tensors(path: Path, *, family: str, configs: Path) -> None:
    """Convert names and shapes without data, so that a file that cannot be loaded is refused at the start.

    Raises:
        ModelError: a tensor of a component is missing or of another shape.
    """
    header = read_header(path)
    for component in COMPONENTS[family]:
        if component not in MODULES:
            continue
        prefix, config = PREFIXES[family][component], read_config(configs / family, component)
        weights = {
            name: torch.empty(shape, device="meta") for name, shape in header.shapes.items() if name.startswith(prefix)
        }
        module = empty_module(component, config)
        _converted(path, component, weights, module=module, prefix=prefix, config=config)


def load_module(path: Path, component: str, *, family: str, configs: Path, dtype: torch.dtype) -> nn.Module:
    """One component with its weights in `dtype`, in eval mode, on the CPU; only its tensors are read.

    Raises:
        ModelError: the file cannot be read or lacks a tensor of the component.
    """
    config = read_config(configs / family, component)
    module = empty_module(component, config)
    prefix = PREFIXES[family][component]
    with damage_errors(path), safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
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
    weights: dict[str, Tensor],
    *,
    module: nn.Module,
    prefix: str,
    config: Mapping[str, Any],
) -> dict[str, Tensor]:
    """`weights` under the names of `module`, each of the module's tensors there and of its shape."""
    missing: list[str] = []
    try:
        converted = _convert(component, weights, module=module, prefix=prefix, config=config)
        missing = [name for name in module.state_dict() if converted.get(name) is None]
    except KeyError as error:
        missing = [str(error.args[0])]
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} tensors of the {component}, the first is '{missing[0]}'.",
            remedy="Download it again; pruned or distilled variants, such as SSD-1B, are not supported.",
        )
    expected = module.state_dict()
    for name, tensor in expected.items():
        if (shape := converted[name].shape) != tensor.shape:
            raise ModelError(
                f"{path} is of no known family: '{name}' of its {component} is of shape {tuple(shape)} "
                f"instead of {tuple(tensor.shape)}.",
                remedy=SUPPORTED,
            )
    if unused := sorted(converted.keys() - expected.keys()):
        logger.warning("%s: %d tensors of the %s are not used: %s", path, len(unused), component, unused[:5])
    return converted


def _convert(
    component: str, weights: dict[str, Tensor], *, module: nn.Module, prefix: str, config: Mapping[str, Any]
) -> dict[str, Tensor]:
    converters: Any = single_file_utils
    if component == "unet":
        return dict(converters.convert_ldm_unet_checkpoint(weights, config))
    if component == "vae":
        return dict(converters.convert_ldm_vae_checkpoint(weights, config))
    if component == "text_encoder":
        # Old files lack the `text_model.`, as does the CLIPTextModel of transformers 5.6.
        names = {name: name.removeprefix(prefix).removeprefix("text_model.") for name in weights}
        wrapper = "text_model." if hasattr(module, "text_model") else ""
        return {wrapper + new: weights[old] for old, new in names.items() if new != "embeddings.position_ids"}
    return dict(converters.convert_open_clip_checkpoint(module, weights, prefix=prefix))
