"""Loading a LoRA file of any trainer into a pipeline: applied whole, or refused with its kind and its modules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from influencerai.errors import InfluencerAIError, ModelError
from influencerai.lora.adapter_file import (
    APPLIED_KINDS,
    PEFT_CONFIG,
    PEFT_PREFIX,
    AdapterFile,
    component_of,
    peft_config,
    read_adapter,
)
from influencerai.models.family import Family

_COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
_LONGEST_REASON = 200
_TEXT_PATH = re.compile(r"(text_model\.)?(encoder\.layers\..+)")


def load_lora(pipeline: Any, path: Path, *, name: str, family: Family, base: Path) -> None:
    """Put the file's modules into the pipeline's components as the adapter `name`.

    Raises:
        ModelError: the file is damaged, of a kind that cannot be applied, or for another base model.
    """
    found = read_adapter(path)
    _check_kinds(found)
    _check_numbers(path)
    try:
        if found.layout == "peft":
            pipeline.load_lora_weights(_from_peft(found, pipeline), adapter_name=name)
        else:
            # Without use_safetensors diffusers falls back on unpickling.
            pipeline.load_lora_weights(
                path.parent, weight_name=path.name, adapter_name=name, use_safetensors=True, local_files_only=True
            )
    except InfluencerAIError:
        raise
    # The loaders raise whatever a foreign key, shape or configuration brings up.
    except Exception as error:
        reason = " ".join(str(error).split())
        short = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} ..."
        raise ModelError(
            f"{path} does not fit {base}, {type(error).__name__}: {short}",
            remedy="Name the base model that it was trained on.",
        ) from error
    _check_all_applied(found, pipeline, name=name, family=family, base=base)


def _check_kinds(found: AdapterFile) -> None:
    others = {module: kind for module, kind in found.modules.items() if kind not in APPLIED_KINDS}
    if not others:
        return
    kinds, first = " and ".join(sorted(set(others.values()))), next(iter(others))
    raise ModelError(
        f"{found.header.path} is of the kind {kinds} in {len(others)} of {len(found.modules)} modules, such as "
        f"'{first}', which cannot be applied here.",
        remedy="Draw with it in ComfyUI, AUTOMATIC1111 or Forge, or convert it to a LoRA with the tools of LyCORIS.",
    )


def _check_numbers(path: Path) -> None:
    """Refuse weights that float16 cannot hold, infinite ones among them: they would draw black pictures."""
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            if tensor.is_floating_point() and not tensor.float().half().isfinite().all():
                raise ModelError(
                    f"{path} is damaged: its tensor '{name}' holds numbers that are infinite or too large.",
                    remedy="Download it again, or train it again with a lower learningRate.",
                )


def _from_peft(found: AdapterFile, pipeline: Any) -> dict[str, Tensor]:
    """PEFT's own file under diffusers' names, with alpha / rank multiplied into the up weights."""
    path = found.header.path
    config = peft_config(path)
    if not isinstance(config.get("lora_alpha"), int | float):
        raise ModelError(
            f"{path} is PEFT's own file, and {PEFT_CONFIG}, which holds its alpha, is not beside it.",
            remedy=f"Put {PEFT_CONFIG} of the same training into {path.parent}.",
        )
    tensors = safetensors.torch.load_file(path)
    ranks = {name.rpartition(".lora_A")[0]: tensor.shape[0] for name, tensor in tensors.items() if ".lora_A" in name}
    state = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".lora_")
        if part.startswith("B"):
            tensor = tensor * _peft_scale(config, module.removeprefix(PEFT_PREFIX), ranks[module])
        state[f"{_place(module.removeprefix(PEFT_PREFIX), tensors, pipeline)}.lora_{part}"] = tensor
    return state


def _peft_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / rank of one module, which a pattern may give an alpha of its own."""
    alpha = float(config["lora_alpha"])
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = float(own)
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _place(module: str, tensors: Mapping[str, Tensor], pipeline: Any) -> str:
    """Component and path of a module of PEFT's file, whose keys do not name the component."""
    match = _TEXT_PATH.fullmatch(module)
    if match is None:
        return f"unet.{module}"
    encoders = [name for name in _COMPONENTS[1:] if getattr(pipeline, name, None) is not None]
    width = next(tensor.shape[-1] for name, tensor in tensors.items() if "self_attn" in name and ".lora_A" in name)
    fitting = [name for name in encoders if getattr(pipeline, name).config.hidden_size == width]
    return f"{(fitting or encoders)[0]}.text_model.{match[2]}"


def _check_all_applied(found: AdapterFile, pipeline: Any, *, name: str, family: Family, base: Path) -> None:
    """Refuse a file of which the base has not all modules: diffusers drops the others without a word."""
    applied = [
        (component, path.removesuffix(".base_layer"))
        for component in _COMPONENTS
        if (module := getattr(pipeline, component, None)) is not None
        for path, layer in module.named_modules()
        if name in getattr(layer, "lora_A", ())
    ]
    if len(applied) >= len(found.modules):
        return
    known = {alias for component, path in applied for alias in _names(component, path, family)}
    absent = [module for module in found.modules if module not in known] or list(found.modules)
    count = len(found.modules) - len(applied)
    of = ", ".join(sorted({component_of(module) for module in absent}))
    raise ModelError(
        f"{found.header.path} changes {len(found.modules)} modules, of which {base} does not have {count} ({of}), such "
        f"as '{absent[0]}'.",
        remedy="Name the base model that it was trained on.",
    )


def _names(component: str, path: str, family: Family) -> set[str]:
    """The names that files of several layouts give to one module."""
    found = {f"{component}.{path}", f"{component}.text_model.{path}", f"{PEFT_PREFIX}{path}"}
    found.add(f"lora_unet_{path.replace('.', '_')}")
    if component in ("unet", *family.text_components):
        found.add(family.kohya_key(component, path))
    return found
