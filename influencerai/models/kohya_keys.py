"""Keys of adapted modules in the kohya layout, as pure functions of module paths.

sd-scripts trains SD1.5 on a UNet with diffusers' module names, but SDXL on one with the original (sgm) names,
so SDXL's paths are mapped block by block. Text encoders go by transformers 4's names, whichever is installed.
"""

from __future__ import annotations

import re

from influencerai.errors import ExportError

_SDXL_LAYERS = 2
"""Resnets in each of SDXL's down blocks; its up blocks have one more."""

_SDXL_BLOCK = re.compile(
    r"(?P<side>down_blocks|up_blocks)\.(?P<block>\d+)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\."
    r"(?P<layer>\d+)\.(?P<rest>.+)"
)
_SDXL_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<layer>\d+)\.(?P<rest>.+)")
_SGM_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def unet_sd15(path: str) -> str:
    """The key of an SD1.5 UNet module at diffusers' `path`."""
    return "lora_unet_" + path.replace(".", "_")


def unet_sdxl(path: str) -> str:
    """The key of an SDXL UNet module at diffusers' `path`.

    Raises:
        ExportError: when the original UNet has no block for it.
    """
    return "lora_unet_" + _sgm_path(path).replace(".", "_")


def text_encoder(prefix: str, path: str) -> str:
    """The key of a CLIP text encoder's module.

    `prefix` is `lora_te` (SD1.5), `lora_te1` (SDXL's CLIP-L) or `lora_te2` (SDXL's OpenCLIP bigG). `path` may
    begin with `text_model.` or not: transformers 5 dropped it, but in CLIPTextModel only.
    """
    return f"{prefix}_text_model_" + path.removeprefix("text_model.").replace(".", "_")


def _sgm_path(path: str) -> str:
    if match := _SDXL_MIDDLE.fullmatch(path):
        kind, layer, rest = match["kind"], int(match["layer"]), match["rest"]
        position = 1 if kind == "attentions" else 2 * layer
        return f"middle_block.{position}.{_inside(kind, rest, path)}"
    if match := _SDXL_BLOCK.fullmatch(path):
        side, kind, rest = match["side"], match["kind"], match["rest"]
        first = (_SDXL_LAYERS + 1) * int(match["block"])
        layer = int(match["layer"])
        if side == "down_blocks" and (kind, layer, rest) == ("downsamplers", 0, "conv"):
            return f"input_blocks.{first + _SDXL_LAYERS + 1}.0.op"
        if side == "up_blocks" and (kind, layer, rest) == ("upsamplers", 0, "conv"):
            return f"output_blocks.{first + _SDXL_LAYERS}.2.conv"
        if kind in ("resnets", "attentions"):
            position = first + layer
            block = f"input_blocks.{position + 1}" if side == "down_blocks" else f"output_blocks.{position}"
            return f"{block}.{int(kind == 'attentions')}.{_inside(kind, rest, path)}"
    raise _unknown(path)


def _inside(kind: str, rest: str, path: str) -> str:
    if kind == "attentions":
        return rest
    if rest not in _SGM_RESNET:
        raise _unknown(path)
    return _SGM_RESNET[rest]


def _unknown(path: str) -> ExportError:
    return ExportError(
        f"The SDXL UNet's module '{path}' has no name in the original layout, so no LoRA file can hold it.",
        remedy="Train modules inside its down, middle and up blocks only.",
    )
