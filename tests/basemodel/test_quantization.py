"""Storage that the loader does not read is refused by its name, by the header alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from influencerai.basemodel import find_base_model
from influencerai.basemodel.quantization import component_tensors
from influencerai.basemodel.weight_file import read_header
from influencerai.errors import ModelError

LAYER = "model.diffusion_model.input_blocks.1.1.proj_in"
FP8 = torch.ones(4, 4).to(torch.float8_e4m3fn)
WHOLE = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4, 3, 3),
    "first_stage_model.encoder.conv_in.weight": torch.ones(4, 3, 3, 3),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.ones(4),
}


def json_tensor(document: object) -> Tensor:
    return torch.tensor(list(json.dumps(document).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({"weight": torch.ones(4, 4, dtype=torch.int8), "SCB": torch.ones(4)}, "bitsandbytes int8"),
        ({"weight": torch.ones(4, 4, dtype=torch.int8), "weight_scale": torch.ones(4)}, "a scale that no fp8"),
        ({"weight": torch.ones(4, 4, dtype=torch.int8)}, "i8"),
        ({"weight": torch.ones(8, 1, dtype=torch.uint8), "weight.absmax": torch.ones(1)}, "bitsandbytes"),
        (
            {
                "weight": torch.ones(8, 1, dtype=torch.uint8),
                "weight.quant_state.bitsandbytes__nf4": torch.ones(3, dtype=torch.uint8),
            },
            "bitsandbytes nf4",
        ),
        ({"qweight": torch.ones(4, 4, dtype=torch.int32), "scales": torch.ones(4)}, "GPTQ or AWQ"),
        ({"weight": FP8, "weight_scale_inv": torch.ones(1, 1)}, "scale per block"),
        ({"weight": FP8, "weight_scale": torch.ones(2, 2)}, "scale per block"),
        ({"weight": FP8, "weight_scale": torch.ones(4, 2)}, "scale per block"),
        ({"weight": torch.ones(4, 2, dtype=torch.uint8), "weight_scale_2": torch.ones(())}, "nvfp4"),
        ({"weight": FP8, "weight_scale": torch.ones(4, 1, dtype=torch.uint8)}, "a scale that no fp8"),
        ({"weight": FP8, "scale_of_somebody": torch.ones(())}, "not understood"),
        ({"weight": FP8, "weight._scale": torch.ones(())}, "not understood"),
        ({"weight": FP8, "comfy_quant": json_tensor({"format": "float8_e4m3fn"})}, "without its scale"),
        ({"weight": FP8, "weight_scale": torch.ones(()), "comfy_quant": json_tensor({"format": "mxfp8"})}, "mxfp8"),
        ({"weight": FP8, "weight_scale": torch.ones(()), "comfy_quant": json_tensor([])}, "unknown format"),
        ({"scale_weight": torch.ones(())}, "a scale that no fp8 weight goes with"),
    ],
)
def test_a_quantised_model_is_named(tensors: dict[str, Tensor], name: str, tmp_path: Path) -> None:
    own = {f"{LAYER}.{leaf}": tensor for leaf, tensor in tensors.items()}
    for others in (WHOLE, {}):
        save_file(others | own, path := tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=rf"is quantised \([^)]*{name}") as caught:
            find_base_model(str(path), models_dirs=[])
        assert LAYER in caught.value.message
        assert "float16" in str(caught.value.remedy)


def test_numbers_of_less_than_a_byte_are_named(tmp_path: Path) -> None:
    entry = {"dtype": "F4", "shape": [4, 4], "data_offsets": [0, 8]}
    text = json.dumps({f"{LAYER}.weight": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ModelError, match=r"is quantised \(f4\)"):
        find_base_model(str(tmp_path / "model.safetensors"), models_dirs=[])


def test_marked_fp8_without_scales_is_refused(tmp_path: Path) -> None:
    marked = {f"{LAYER}.weight": FP8, "model.diffusion_model.scaled_fp8": torch.empty(2).to(torch.float8_e4m3fn)}
    save_file(WHOLE | marked, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="scaled fp8 without its scales"):
        find_base_model(str(tmp_path / "model.safetensors"), models_dirs=[])


def test_a_format_in_the_metadata_is_read(tmp_path: Path) -> None:
    layers = {LAYER: {"format": "int8_blockwise", "group_size": 128}}
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    save_file(WHOLE | {f"{LAYER}.weight": FP8}, tmp_path / "model.safetensors", metadata)
    with pytest.raises(ModelError, match="int8_blockwise"):
        find_base_model(str(tmp_path / "model.safetensors"), models_dirs=[])


@pytest.mark.parametrize("leaf", ["lora_A.weight", "lora_down.weight", "hada_w1_a", "lokr_w1", "base_layer.weight"])
def test_an_adapter_inside_a_component_is_refused(leaf: str, tmp_path: Path) -> None:
    save_file(WHOLE | {f"{LAYER}.{leaf}": torch.ones(4, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="holds an adapter that is not merged: 1 tensors inside its unet"):
        find_base_model(str(tmp_path / "model.safetensors"), models_dirs=[])


@pytest.mark.parametrize(
    ("without", "text"),
    [
        ("cond_stage_model.", r"holds no text_encoder \("),
        ("first_stage_model.", "holds no vae"),
    ],
)
def test_a_missing_part_is_named(without: str, text: str, tmp_path: Path) -> None:
    save_file({n: t for n, t in WHOLE.items() if not n.startswith(without)}, path := tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=text) as caught:
        find_base_model(str(path), models_dirs=[])
    assert "full checkpoint" in str(caught.value.remedy)


def test_sdxl_without_one_or_both_text_encoders(tmp_path: Path) -> None:
    unet = {name: tensor for name, tensor in WHOLE.items() if not name.startswith("cond_stage")}
    unet["model.diffusion_model.label_emb.0.0.weight"] = torch.ones(4, 4)
    first = {"conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": torch.ones(4)}
    for tensors, text in ((unet, r"holds no text_encoder \("), (unet | first, r"holds no text_encoder_2 \(")):
        save_file(tensors, path := tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=text):
            find_base_model(str(path), models_dirs=[])


def test_a_lora_stays_a_lora(tmp_path: Path) -> None:
    for names in (
        ("lora_unet_a.lora_down.weight", "lora_unet_a.alpha"),
        ("model.diffusion_model.a.lora_A.weight", "model.diffusion_model.a.alpha"),
        ("unet.down_blocks.0.attn1.processor.to_q_lora.down.weight",),
        ("lora_unet_a.hada_w1_a", "lora_unet_a.diff_b"),
    ):
        save_file({name: torch.ones(2) for name in names}, path := tmp_path / "lora.safetensors")
        with pytest.raises(ModelError, match="is a LoRA, not a base model"):
            find_base_model(str(path), models_dirs=[])


def test_the_scales_of_a_component(tmp_path: Path) -> None:
    save_file(
        {"x.weight": FP8, "x.scale_weight": torch.ones(1), "x.scale_input": torch.ones(())}, tmp_path / "m.safetensors"
    )
    found = component_tensors([read_header(tmp_path / "m.safetensors")], "unet")
    assert (set(found.weights), dict(found.scales)) == ({"x.weight"}, {"x.weight": "x.scale_weight"})
    assert found.unused == ()
