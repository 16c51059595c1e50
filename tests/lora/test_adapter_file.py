"""Adapter files of several trainers, described by their headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from influencerai.errors import ModelError
from influencerai.lora.adapter_file import AdapterFile, read_adapter

CROSS = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def described(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> AdapterFile:
    save_file(tensors, path / "lora.safetensors", metadata)
    return read_adapter(path / "lora.safetensors")


def lora(key: str, *, rank: int = 4, width: int = 768) -> dict[str, Tensor]:
    return {f"{key}.lora_down.weight": torch.ones(rank, width), f"{key}.lora_up.weight": torch.ones(8, rank)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_kohya_file(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = lora(f"lora_unet_{CROSS}") | lora("lora_te_text_model_encoder_layers_0_mlp_fc1", rank=2)
    alphas = {f"lora_unet_{CROSS}.alpha": torch.tensor(2.5, dtype=dtype)}
    found = described(tmp_path, tensors | alphas)
    assert (found.layout, found.kind, found.ranks, found.alphas) == ("kohya", "LoRA", (2, 4), (2.5,))
    assert (found.components, found.targets) == ({"text_encoder": 1, "unet": 1}, {"attention": 1, "feed-forward": 1})
    assert found.family == "sd15"
    assert "ComfyUI" in found.readers


@pytest.mark.parametrize(
    ("width", "metadata", "family"),
    [
        (768, {}, "sd15"),
        (1024, {}, "Stable Diffusion 2"),
        (2048, {}, "sdxl"),
        (64, {}, None),
        (768, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        (768, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        (768, {"ss_base_model_version": "flux1"}, "flux1"),
    ],
)
def test_the_family(width: int, metadata: dict[str, str], family: str | None, tmp_path: Path) -> None:
    assert described(tmp_path, lora(f"lora_unet_{CROSS}", width=width), metadata).family == family


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"), "LoHa"),
        (("lokr_w1", "lokr_w2_a", "lokr_w2_b"), "LoKr"),
        (("oft_blocks", "alpha"), "OFT"),
        (("lora_down.weight", "lora_up.weight", "dora_scale"), "DoRA"),
        (("lora_down.weight", "lora_mid.weight", "lora_up.weight"), "LoCon with a core (lora_mid)"),
        (("diff", "diff_b"), "full difference"),
    ],
)
def test_kinds(parts: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    found = described(tmp_path, {f"lora_unet_{CROSS}.{part}": torch.ones(2, 2) for part in parts})
    assert (found.kind, len(found.modules)) == (kind, 1)


def test_diffusers_and_peft_layouts(tmp_path: Path) -> None:
    pair = {"lora_A.weight": torch.ones(4, 8), "lora_B.weight": torch.ones(8, 4)}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 2})}
    path = "mid_block.attentions.0.proj_in"
    found = described(tmp_path, {f"unet.{path}.{part}": tensor for part, tensor in pair.items()}, metadata)
    assert (found.layout, found.components, found.alphas) == ("diffusers", {"unet": 1}, (2.0,))
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 16}')
    found = described(tmp_path, {f"base_model.model.{path}.{part}": tensor for part, tensor in pair.items()})
    assert (found.layout, found.ranks, found.alphas) == ("peft", (4,), (16.0,))
    old = {f"unet.{path}.processor.to_q_lora.{side}.weight": torch.ones(4, 4) for side in ("down", "up")}
    found = described(tmp_path, old)
    assert (found.layout, found.kind, len(found.modules)) == ("diffusers", "LoRA", 1)


def test_what_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lora\.safetensors is no LoRA"):
        described(tmp_path, {"conv_in.weight": torch.ones(2, 2)})
    with pytest.raises(ModelError, match="is a base model, with an adapter in it"):
        described(tmp_path, {"model.diffusion_model.x.weight": torch.ones(2)} | lora("lora_unet_x"))
