"""Diffusers folders: recognising one by its configurations, and checking that it is whole."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from influencerai.basemodel.components import (
    CLASSES,
    COMPONENTS,
    VOCABULARIES,
    Recognition,
    noise_schedule,
    read_config,
    read_json,
)
from influencerai.basemodel.quantization import component_tensors, unused_warning
from influencerai.basemodel.weight_file import PICKLE_SUFFIXES, adapter_error, read_header
from influencerai.errors import ModelError

PIPELINES = {"StableDiffusionPipeline": "sd15", "StableDiffusionXLPipeline": "sdxl"}
"""Family of every pipeline that a model_index.json may name."""
VARIANTS = (None, "fp16", "bf16", "fp32")
"""Variants of the weights in order of preference; None is the plain one. Another one is read where it is alone."""

_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_TEXT_STEM = "model"
_SD2_WIDTH = 1024
_ADAPTER_CONFIG = "adapter_config.json"
_MAX_LEVELS = 8
_MAX_SIDE = 16_384
_MAX_TIMESTEPS = 10_000
_SUPPORTED = f"Supported are folders of a {' or a '.join(PIPELINES)}."


def recognise(folder: Path) -> Recognition:
    """Recognises a diffusers folder; reads JSON and headers only.

    Raises:
        ModelError: no diffusers folder, of no supported family, or with a component missing, damaged or quantised.
    """
    if not (folder / "model_index.json").is_file():
        raise _not_a_diffusers_folder(folder)
    index = read_json(folder / "model_index.json")
    family = PIPELINES.get(str(index.get("_class_name")))
    if family is None:
        raise ModelError(f"{folder} is a {index.get('_class_name')}, which is not supported.", remedy=_SUPPORTED)
    warnings = [text for component in COMPONENTS[family] for text in _check_component(folder, component, index)]
    _check_architecture(folder, family)
    prediction_type, zero_terminal_snr = noise_schedule(folder, read_config(folder, "scheduler"))
    return Recognition(
        family=family,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        warnings=tuple(warnings),
    )


def weight_files(folder: Path, component: str) -> tuple[str | None, list[Path]]:
    """Variant (None, "fp16", ...) and .safetensors files of a component's weights, its shards in order.

    Raises:
        ModelError: there are none, or only pickles; an index or an adapter names files elsewhere.
    """
    place, stem = folder / component, _STEMS.get(component, _TEXT_STEM)
    for config in (folder / _ADAPTER_CONFIG, place / _ADAPTER_CONFIG):
        if config.exists():  # transformers would load the weights that it names, from anywhere
            raise ModelError(
                f"{config} would replace the model's {component} by an adapter, which is not supported.",
                remedy="Remove that file, or merge the adapter into the model.",
            )
    others = _other_variants(place, stem)
    for variant in (*VARIANTS, *others[: len(others) == 1]):
        infix = f".{variant}" if variant else ""
        if (file := place / f"{stem}{infix}.safetensors").is_file():
            return variant, [file]
        if (index := place / f"{stem}.safetensors.index{infix}.json").is_file():
            return variant, _shards(index)
    pickles = sorted(path.name for path in place.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ModelError(
            f"{place} holds its weights as pickles only ({', '.join(pickles)}), which are never opened here.",
            remedy="Get the model's .safetensors files, or save the pipeline with safe_serialization=True.",
        )
    if others:
        raise ModelError(
            f"{place} holds its weights in several variants ({', '.join(others)}), and none that is preferred.",
            remedy=f"Rename the file of one of them to {stem}.safetensors.",
        )
    missing = (
        f"{stem}.safetensors.index.json" if any(place.glob(f"{stem}*-of-*.safetensors")) else f"{stem}.safetensors"
    )
    raise ModelError(f"{place} holds no weights: {missing} is missing.", remedy="Download the model again.")


def _other_variants(place: Path, stem: str) -> list[str]:
    """Names of the variants that lie in a component's folder, but those of `VARIANTS`."""
    pattern = re.compile(rf"{stem}(?:\.(\w+)\.safetensors|\.safetensors\.index\.(\w+)\.json)")
    found = {match[1] or match[2] for path in place.iterdir() if (match := pattern.fullmatch(path.name))}
    return sorted(found - {"index", *VARIANTS})


def _check_component(folder: Path, component: str, index: dict[str, Any]) -> list[str]:
    """Refuse a component that cannot be loaded; returns warnings about tensors that are not used."""
    place = folder / component
    entry = index.get(component)
    declared = entry[-1] if isinstance(entry, list) and entry else None
    if declared is None or not place.is_dir():
        hint = " The SDXL refiner is not supported." if component == "text_encoder" and declared is None else ""
        raise ModelError(
            f"{folder} lacks its {component}.{hint}", remedy="Download the model again, all of its folders."
        )
    for file in place.iterdir():
        if file.exists() and not file.is_file() and not file.is_dir():
            raise ModelError(f"{file} is not a regular file.", remedy="Download or copy the model again.")
    if component not in CLASSES:
        if not any((place / name).is_file() for name in VOCABULARIES):
            raise ModelError(f"{place} holds no {VOCABULARIES[-1]}.", remedy="Download the model again.")
        return []
    if declared != CLASSES[component]:
        raise ModelError(f"{folder} has a {declared} as its {component}, which is not supported.", remedy=_SUPPORTED)
    if quantization := read_config(folder, component).get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise ModelError(
            f"{place} is quantised ({method}), which is not supported: its config.json has a quantization_config.",
            remedy="Use the model in float16, bfloat16 or float32.",
        )
    headers = [read_header(file) for file in weight_files(folder, component)[1]]
    return unused_warning(place, component, component_tensors(headers, component).unused)


def _shards(index: Path) -> list[Path]:
    """The files that an index names, all beside it."""
    names = read_json(index).get("weight_map")
    shards = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
    if not shards or not all(Path(name).name == name and name.endswith(".safetensors") for name in shards):
        raise ModelError(
            f"{index} is damaged: its weight_map does not map tensors to .safetensors files beside it.",
            remedy="Download the model again.",
        )
    return [index.parent / name for name in shards]


def _check_architecture(folder: Path, family: str) -> None:
    unet, vae = read_config(folder, "unet"), read_config(folder, "vae")
    size, scaling = unet.get("sample_size", 0), vae.get("scaling_factor", 1.0)
    timesteps = read_config(folder, "scheduler").get("num_train_timesteps", 1000)
    for component, name, right in (
        ("unet", "block_out_channels", _is_channels(unet.get("block_out_channels"))),
        ("unet", "sample_size", _is_count(size) and size <= _MAX_SIDE),
        ("vae", "block_out_channels", _is_channels(vae.get("block_out_channels"))),
        ("vae", "scaling_factor", isinstance(scaling, int | float) and 0 < scaling < math.inf),
        ("scheduler", "num_train_timesteps", _is_count(timesteps) and timesteps <= _MAX_TIMESTEPS),
    ):
        if not right:
            raise ModelError(
                f"The configuration in {folder / component} is damaged: its {name} is missing or wrong.",
                remedy="Download or copy the model again.",
            )
    if family == "sd15" and unet.get("cross_attention_dim") == _SD2_WIDTH:
        raise ModelError(f"{folder} is Stable Diffusion 2, which is not supported.", remedy="Use SD1.5 or SDXL.")
    if unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        raise ModelError(
            f"{folder} is an inpainting or image-editing model, which is not supported.",
            remedy="Use the text-to-image model that it was made from.",
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_channels(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= _MAX_LEVELS and all(map(_is_count, value))


def _not_a_diffusers_folder(folder: Path) -> ModelError:
    if (folder / _ADAPTER_CONFIG).is_file() or (folder / "pytorch_lora_weights.safetensors").is_file():
        return adapter_error(folder)
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return ModelError(
            f"{folder} is no diffusers folder, it lacks model_index.json.",
            remedy=f"If a file in it is the model, give that: {', '.join(map(str, files[:3]))}.",
        )
    return ModelError(
        f"{folder} is no diffusers folder, it lacks model_index.json.",
        remedy="Give the folder that holds model_index.json, or a .safetensors file.",
    )
