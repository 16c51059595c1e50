"""Target modules of a LoRA in a diffusers UNet and in a CLIP text encoder."""

from __future__ import annotations

import re

from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

from influencerai.domain.training_options import TargetModules

_UNET_ATTENTION = re.compile(r".*\.attn\d+\.(to_q|to_k|to_v|to_out\.0)")
_TEXT_ATTENTION = re.compile(r"(.*\.)?self_attn\.(q_proj|k_proj|v_proj|out_proj)")
_TEXT_MLP = re.compile(r"(.*\.)?mlp\.(fc1|fc2)")


def unet_targets(module: nn.Module, targets: TargetModules) -> list[str]:
    """Paths inside a UNet2DConditionModel, in module order.

    attention: q, k, v and out of every transformer; transformer: every Linear and 1x1 convolution of the
    transformers (what sd-scripts trains by default); all: also the convolutions and time projections of the
    resnets, down- and upsamplers (what sd-scripts adds with `conv_dim`).
    """
    blocks: tuple[type[nn.Module], ...] = (Transformer2DModel,)
    if targets == "all":
        blocks += (ResnetBlock2D, Downsample2D, Upsample2D)
    paths = {
        path
        for block_path, block in module.named_modules()
        if isinstance(block, blocks)
        for path, part in block.named_modules(prefix=block_path)
        if isinstance(part, nn.Linear | nn.Conv2d)
    }
    if targets == "attention":
        paths = {path for path in paths if _UNET_ATTENTION.fullmatch(path)}
    return [path for path, _ in module.named_modules() if path in paths]


def text_encoder_targets(module: nn.Module, targets: TargetModules) -> list[str]:
    """Paths inside a CLIPTextModel or CLIPTextModelWithProjection, in module order.

    attention: q, k, v and out of every layer; transformer and all: also the layers' feed-forward.
    """
    patterns = [_TEXT_ATTENTION] if targets == "attention" else [_TEXT_ATTENTION, _TEXT_MLP]
    return [
        path
        for path, part in module.named_modules()
        if isinstance(part, nn.Linear) and any(pattern.fullmatch(path) for pattern in patterns)
    ]
