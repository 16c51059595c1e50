"""Reading a LoRA file as its users' programs do: which module each key means, and with what alpha."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import safetensors.torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import SafetensorError
from torch import Tensor

from influencerai.domain.lora_layout import Layout
from influencerai.errors import ExportError
from influencerai.files import safetensors_file
from influencerai.lora.adapter import LoraWeights
from influencerai.models.family import Family

PEFT_METADATA = "lora_adapter_metadata"
"""Where diffusers looks for PEFT's configuration. A file that has it may have no alphas."""

_DIFFUSERS_LOADERS: dict[str, Any] = {
    "stable-diffusion-v1": StableDiffusionLoraLoaderMixin,
    "stable-diffusion-xl-v1-base": StableDiffusionXLLoraLoaderMixin,
}
_SDXL_LAYOUT = SimpleNamespace(layers_per_block=2)

Key = tuple[str, str]
Value = TypeVar("Value")


def bare_path(path: str) -> str:
    """A CLIP module's path without the `text_model.` that depends on the version of transformers."""
    return path.removeprefix("text_model.")


def read_layout(path: Path) -> Layout:
    """The layout of a file that `write_lora` wrote."""
    metadata, _ = safetensors_file.read_safetensors_header(path)
    return "diffusers" if PEFT_METADATA in metadata else "kohya"


def read_lora(path: Path, *, keys: Iterable[Key], family: Family) -> dict[Key, LoraWeights]:
    """The file's weights by (component, bare path), in the file's own precision.

    diffusers' loader translates the keys of families that it supports; for others `keys` are the (component, path)
    that the family may be asked for names of.

    Raises:
        ExportError: the file cannot be read, or its keys cannot be understood.
    """
    metadata, _ = safetensors_file.read_safetensors_header(path)
    loader = _DIFFUSERS_LOADERS.get(family.modelspec_architecture)
    try:
        if PEFT_METADATA in metadata:
            return _read_peft(path, json.loads(metadata[PEFT_METADATA]), loader)
        if loader is not None:
            return _read_kohya_with_diffusers(path, loader)
        return _read_kohya_with_family(path, keys, family)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ExportError(f"{path} cannot be read back as a LoRA: {error}") from error


def _read_peft(path: Path, configs: Mapping[str, Any], loader: Any) -> dict[Key, LoraWeights]:
    if loader is None:
        tensors = dict(safetensors.torch.load_file(path))
    else:
        tensors, _ = _load_with_diffusers(path, loader)
        tensors = _peft_names(tensors)
    alphas = {
        f"{name.removesuffix('.target_modules')}.{target}": float(
            configs[name.removesuffix(".target_modules") + ".lora_alpha"]
        )
        for name in configs
        if name.endswith(".target_modules")
        for target in configs[name]
    }
    return _paired(tensors, alphas)


def _read_kohya_with_diffusers(path: Path, loader: Any) -> dict[Key, LoraWeights]:
    state, alphas = _load_with_diffusers(path, loader)
    # diffusers names an alpha after its module's down weight, whose ending it has cut off where it is `.lora.`.
    named = {name.removesuffix(".alpha"): alpha for name, alpha in alphas.items()}
    downs = {name if name.endswith(".weight") else f"{name}.lora.down.weight": alpha for name, alpha in named.items()}
    by_module = {name.rpartition(".lora_")[0]: alpha for name, alpha in _peft_names(downs).items()}
    return _paired(_peft_names(state), by_module)


def _read_kohya_with_family(path: Path, keys: Iterable[Key], family: Family) -> dict[Key, LoraWeights]:
    modules = {family.kohya_key(component, module): f"{component}.{module}" for component, module in keys}
    tensors: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for name, tensor in safetensors.torch.load_file(path).items():
        key, _, part = name.partition(".")
        module = modules.get(key, key)
        if part == "alpha":
            alphas[module] = float(tensor)
        else:
            side = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}.get(part, part)
            tensors[f"{module}.{side}"] = tensor
    return _paired(tensors, alphas)


def _load_with_diffusers(path: Path, loader: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    state, alphas = loader.lora_state_dict(
        path.parent,
        weight_name=path.name,
        local_files_only=True,
        use_safetensors=True,
        unet_config=_SDXL_LAYOUT,
    )
    return state, alphas or {}


def _peft_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """`<component>.<path>.lora_A.weight` and `.lora_B.weight` for diffusers' own intermediate names."""
    components: dict[str, dict[str, Value]] = {}
    for name, value in state.items():
        component, _, rest = name.partition(".")
        components.setdefault(component, {})[rest] = value
    found: dict[str, Value] = {}
    for component, members in components.items():
        if component == "unet":
            converted = convert_unet_state_dict_to_peft(members)
        else:
            converted = convert_state_dict_to_peft(convert_state_dict_to_diffusers(members))
        found.update({f"{component}.{name}": value for name, value in converted.items()})
    return found


def _paired(tensors: Mapping[str, Tensor], alphas: Mapping[str, float]) -> dict[Key, LoraWeights]:
    """One entry per module that has a down weight, an up weight and an alpha; ValueError for what is left over."""
    scales = {_key(name): alpha for name, alpha in alphas.items()}
    sides: dict[Key, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, side = name.rpartition(".lora_")
        sides.setdefault(_key(module), {})[side] = tensor
    for key in sorted(sides.keys() | scales.keys()):
        if sides.get(key, {}).keys() != {"A.weight", "B.weight"} or key not in scales:
            raise ValueError(f"the module '{'.'.join(key)}' is incomplete")
    return {
        key: LoraWeights(down=pair["A.weight"], up=pair["B.weight"], alpha=scales[key]) for key, pair in sides.items()
    }


def _key(name: str) -> Key:
    component, _, path = name.partition(".")
    return component, bare_path(path)
