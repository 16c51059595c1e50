"""Single-file models: SD1.5 in the LDM layout, SDXL in the sgm layout, recognised by their tensors' names.

Such a file holds no configurations of its components, so they come from this package (configs/), not from a hub.
"""

from __future__ import annotations

from pathlib import Path

from influencerai.basemodel.components import CLASSES, COMPONENTS, Recognition, noise_schedule, read_config
from influencerai.basemodel.quantization import component_tensors, unused_warning
from influencerai.basemodel.weight_file import WeightHeader, adapter_error, is_adapter_tensor, read_header
from influencerai.errors import ModelError

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
_UNET = "model.diffusion_model."
_OTHER_PARTS = ("first_stage_model.", "cond_stage_model.", "conditioner.")
_SDXL_MARKS = ("conditioner.", "model.diffusion_model.label_emb.")
_DIFFUSERS_MARKS = ("down_blocks.", "encoder.down_blocks.")
_INPUT_CHANNELS = {8: "an image-editing model (InstructPix2Pix)", 9: "an inpainting model"}
SUPPORTED = "Supported single files are SD1.5 and SDXL base models with UNet, VAE and text encoders."


def recognise(path: Path, *, configs: Path) -> Recognition:
    """Recognise a single-file model by its header.

    `configs` holds a diffusers folder of component configurations per family.

    Raises:
        ModelError: truncated, a pickle, a LoRA, of no supported family, quantised, or lacking a component.
    """
    header = read_header(path)
    family = _family(header)
    warnings = _check_components(header, family, configs=configs / family)
    prediction_type, zero_terminal_snr = noise_schedule(path, read_config(configs / family, "scheduler"))
    # Markers that NoobAI and others add and ComfyUI reads; kohya's tools state it in the metadata.
    if "v_pred" in header.shapes or header.metadata.get("modelspec.prediction_type", "").startswith("v"):
        prediction_type = "v_prediction"
    return Recognition(
        family=family,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr or "ztsnr" in header.shapes,
        warnings=tuple(warnings),
    )


def _family(header: WeightHeader) -> str:
    if header.is_adapter:
        raise adapter_error(header.path)
    for mark, what in _UNSUPPORTED_MARKS.items():
        if header.has(mark):
            raise ModelError(f"{header.path} is {what}, which is not supported.", remedy=SUPPORTED)
    for mark, family in _FAMILY_MARKS.items():
        if header.has(mark):
            return family
    if header.has(_UNET) and any(header.has(prefix) for prefix in _OTHER_PARTS):
        # The text encoder that names the family is missing; the check of components reports it.
        is_sdxl = any(header.has(mark) for mark in _SDXL_MARKS)
        return "sdxl" if is_sdxl else "sd15"
    component_tensors([header], "weights")  # a quantised part is named as that first
    if any(header.has(mark) for mark in _DIFFUSERS_MARKS):
        raise ModelError(
            f"{header.path} is one component of a diffusers folder.",
            remedy="Give the folder that holds model_index.json.",
        )
    for mark, what in _PARTS.items():
        if header.has(mark):
            raise ModelError(f"{header.path} holds {what}, not a whole model.", remedy=SUPPORTED)
    raise ModelError(f"{header.path} is of no known family.", remedy=SUPPORTED)


def _check_components(header: WeightHeader, family: str, *, configs: Path) -> list[str]:
    """Refuse a model that is incomplete or quantised; returns warnings about tensors that are not used."""
    warnings = []
    for component in COMPONENTS[family]:
        if component not in CLASSES:
            continue
        prefix = PREFIXES[family][component]
        if not header.has(prefix):
            raise ModelError(
                f"{header.path} holds no {component} (no tensor '{prefix}*').",
                remedy="Use a full checkpoint, with UNet, VAE and text encoders, or the model's diffusers folder.",
            )
        unused = component_tensors([header], component, prefix=prefix).unused
        warnings += unused_warning(header.path, component, unused)
    first = header.shapes.get(PREFIXES[family]["unet"] + "input_blocks.0.0.weight", ())
    if len(first) == 4 and first[1] != read_config(configs, "unet")["in_channels"]:
        what = _INPUT_CHANNELS.get(first[1], f"a model with {first[1]} input channels")
        raise ModelError(f"{header.path} is {what}, which is not supported.", remedy=SUPPORTED)
    prefixes = tuple(PREFIXES[family].values())
    adapter = [name for name in header.tensors if is_adapter_tensor(name) and not name.startswith(prefixes)]
    if adapter:
        warnings += unused_warning(header.path, "leftover adapter", adapter)
    return warnings
