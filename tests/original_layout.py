"""The inverse of what the single-file loader does: diffusers' components under their original (LDM, sgm) names."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from influencerai.basemodel.single_file import PREFIXES

Modules = Mapping[str, nn.Module]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm": "ln_",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


def original_tensors(family: str, modules: Modules) -> dict[str, Tensor]:
    """Every tensor that a checkpoint of the family holds, under its original name."""
    tensors: dict[str, Tensor] = {}
    for component, prefix in PREFIXES[family].items():
        state = modules[component].state_dict()
        if component == "unet":
            found = _unet(state)
        elif component == "vae":
            found = _vae(state)
        elif component == "text_encoder":
            found = {"text_model." + name: tensor for name, tensor in state.items()}
            found["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        else:
            found = _open_clip(state)
        tensors |= {prefix + name: tensor.contiguous() for name, tensor in found.items()}
    return tensors


def save_single_file(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write a real file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path, metadata)
    return path


def save_hollow_file(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write a file of the right size with a true header and a hole where the tensors would be."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def _unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with_attention = {name.split(".")[1] for name in state if re.match(r"up_blocks\.\d+\.attentions", name)}
    found = {}
    for name, tensor in state.items():
        found[_unet_name(name, with_attention=with_attention)] = tensor
    return found


def _unet_name(name: str, *, with_attention: set[str]) -> str:
    for new, old in _UNET_ENDS.items():
        if name.startswith(new + "."):
            return old + name.removeprefix(new)
    block, kind, layer, rest = _split(name)
    if kind == "resnets":
        part, _, tail = rest.partition(".")
        rest = f"{_RESNET[part]}.{tail}"
    if name.startswith("mid_block"):
        position = 1 if kind == "attentions" else 2 * layer
        return f"middle_block.{position}.{rest}"
    inside = int(kind == "attentions")
    if name.startswith("down_blocks"):
        if kind == "downsamplers":
            return f"input_blocks.{3 * block + 3}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{3 * block + layer + 1}.{inside}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.{2 if str(block) in with_attention else 1}.{rest}"
    return f"output_blocks.{3 * block + layer}.{inside}.{rest}"


def _split(name: str) -> tuple[int, str, int, str]:
    """down_blocks.1.resnets.0.conv1.weight -> (1, resnets, 0, conv1.weight); a middle block's number is 0."""
    match = re.fullmatch(r"(?:down_blocks\.|up_blocks\.|mid_block)(\d*)\.(\w+)\.(\d+)\.(.+)", name)
    assert match, name
    return int(match[1] or 0), match[2], int(match[3]), match[4]


def _vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("decoder.up_blocks."))
    found = {}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", new)
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        if ".attentions.0." in new:
            side, _, part = new.partition(".mid_block.attentions.0.")
            part, _, kind = part.rpartition(".")
            new = f"{side}.mid.attn_1.{_VAE_ATTENTION[part]}.{kind}"
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        found[new] = tensor
    return found


def _open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {"text_projection": state["text_projection.weight"].T, "logit_scale": torch.tensor(4.6)}
    for name, tensor in state.items():
        if name == "text_projection.weight" or ".k_proj." in name or ".v_proj." in name:
            continue
        new = name
        for ours, theirs in _OPEN_CLIP.items():
            new = new.replace(ours, theirs)
        if ".q_proj." in name:
            parts = [state[name.replace("q_proj", which)] for which in ("q_proj", "k_proj", "v_proj")]
            new, tensor = new.replace("q_proj.", "in_proj_"), torch.cat(parts)
        found[new] = tensor
    return found
