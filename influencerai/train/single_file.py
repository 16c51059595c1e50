"""Single-file models: SD1.5 in the LDM layout, SDXL in the sgm layout, recognised by their tensors' names.

The components' configurations come from us (configs/), since such a file holds none and no hub is asked.
Names are converted by diffusers' own converters; every tensor is accounted for.
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

from influencerai.domain.training_options import PredictionType
from influencerai.errors import ModelError
from influencerai.train.model_components import (
    COMPONENTS,
    MODULES,
    damage_errors,
    empty_module,
    noise_schedule,
    read_config,
)
from influencerai.train.weight_file import WeightHeader, adapter_error, read_header

logger = logging.getLogger(__name__)

PREFIXES = {
    "sd15": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.",
    },
    "sdxl": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
"""Where a family's components lie in its single files."""

_FAMILY_MARKS = {"conditioner.embedders.1.model.": "sdxl", "cond_stage_model.transformer.": "sd15"}
_UNSUPPORTED_MARKS = {
    "conditioner.embedders.0.model.": "the SDXL refiner",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "double_blocks.": "FLUX or another flow-matching transformer",
    "model.diffusion_model.double_blocks.": "FLUX or another flow-matching transformer",
    "joint_blocks.": "Stable Diffusion 3",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
    "control_model.": "a ControlNet",
    "edm_mean": "an EDM model such as Playground v2.5",
    "edm_vpred.sigma_max": "an EDM model such as CosXL",
    "emb_params": "a textual inversion embedding",
}
_PARTS = {
    "model.diffusion_model.": "only a UNet",
    "input_blocks.": "only a UNet",
    "first_stage_model.": "only a VAE",
    "encoder.down.": "only a VAE",
    "text_model.": "only a text encoder",
}
_DIFFUSERS_MARKS = ("down_blocks.", "encoder.down_blocks.")
_INPUT_CHANNELS = {8: "an image-editing model (InstructPix2Pix)", 9: "an inpainting model"}
_SUPPORTED = "Supported single files are SD1.5 and SDXL base models with UNet, VAE and text encoders."


def recognise(path: Path, *, configs: Path) -> tuple[str, PredictionType, bool]:
    """Family, prediction type and zero terminal SNR of a single-file model; reads the file's header only.

    `configs` holds a diffusers folder of component configurations per family.

    Raises:
        ModelError: truncated, a pickle, a LoRA, of no supported family, or lacking a component or a tensor.
    """
    header = read_header(path)
    family = _family(header)
    _check_tensors(header, family, configs=configs / family)
    prediction_type, zero_terminal_snr = noise_schedule(path, read_config(configs / family, "scheduler"))
    # Markers that NoobAI and others add and ComfyUI reads; kohya's tools state it in the metadata.
    if "v_pred" in header.shapes or header.metadata.get("modelspec.prediction_type", "").startswith("v"):
        prediction_type = "v_prediction"
    return family, prediction_type, zero_terminal_snr or "ztsnr" in header.shapes


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


def _family(header: WeightHeader) -> str:
    if header.is_adapter:
        raise adapter_error(header.path)
    for mark, what in _UNSUPPORTED_MARKS.items():
        if header.has(mark):
            raise ModelError(f"{header.path} is {what}, which is not supported.", remedy=_SUPPORTED)
    for mark, family in _FAMILY_MARKS.items():
        if header.has(mark):
            return family
    if any(header.has(mark) for mark in _DIFFUSERS_MARKS):
        raise ModelError(
            f"{header.path} is one component of a diffusers folder.",
            remedy="Give the folder that holds model_index.json.",
        )
    for mark, what in _PARTS.items():
        if header.has(mark):
            raise ModelError(f"{header.path} holds {what}, not a whole model.", remedy=_SUPPORTED)
    raise ModelError(f"{header.path} is of no known family.", remedy=_SUPPORTED)


def _check_tensors(header: WeightHeader, family: str, *, configs: Path) -> None:
    """Convert names and shapes without data, so that a file that cannot be loaded is refused at the start."""
    for component in COMPONENTS[family]:
        if component not in MODULES:
            continue
        prefix, config = PREFIXES[family][component], read_config(configs, component)
        shapes = {name: shape for name, shape in header.shapes.items() if name.startswith(prefix)}
        if not shapes:
            raise ModelError(
                f"{header.path} holds no {component} (no tensor '{prefix}*').",
                remedy="Use a full checkpoint, with UNet, VAE and text encoders.",
            )
        first = shapes.get(prefix + "input_blocks.0.0.weight", ())
        if component == "unet" and len(first) == 4 and first[1] != config["in_channels"]:
            what = _INPUT_CHANNELS.get(first[1], f"a model with {first[1]} input channels")
            raise ModelError(f"{header.path} is {what}, which is not supported.", remedy=_SUPPORTED)
        weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        module = empty_module(component, config)
        _converted(header.path, component, weights, module=module, prefix=prefix, config=config)


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
                remedy=_SUPPORTED,
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
