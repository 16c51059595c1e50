"""The counts and names of sd-scripts, on the real SD1.5 and SDXL architectures without their weights."""

from __future__ import annotations

import json
import re
from importlib import resources
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from influencerai.domain.training_options import TargetModules
from influencerai.errors import ExportError
from influencerai.models import kohya_keys, lora_targets

TARGETS: tuple[TargetModules, ...] = ("attention", "transformer", "all")


def config(family: str, component: str) -> dict[str, Any]:
    folder = resources.files("influencerai.basemodel") / "configs" / family / component
    document: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return document


def unet(family: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = UNet2DConditionModel.from_config(config(family, "unet"))
    return model


@pytest.fixture(scope="module")
def sd15() -> nn.Module:
    return unet("sd15")


@pytest.fixture(scope="module")
def sdxl() -> nn.Module:
    return unet("sdxl")


def text_encoders(family: str) -> list[tuple[str, Any]]:
    with torch.device("meta"):
        first = CLIPTextModel(CLIPTextConfig(**config(family, "text_encoder")))
        if family == "sd15":
            return [("lora_te", first)]
        second = CLIPTextModelWithProjection(CLIPTextConfig(**config(family, "text_encoder_2")))
    return [("lora_te1", first), ("lora_te2", second)]


def text_keys(family: str, targets: TargetModules) -> list[list[str]]:
    return [
        [kohya_keys.text_encoder(prefix, path) for path in lora_targets.text_encoder_targets(module, targets)]
        for prefix, module in text_encoders(family)
    ]


class TestSd15:
    @pytest.mark.slow
    def test_default_targets_are_those_of_the_reference_trainer(self, sd15: nn.Module) -> None:
        keys = [kohya_keys.unet_sd15(path) for path in lora_targets.unet_targets(sd15, "transformer")]
        (text,) = text_keys("sd15", "transformer")
        assert (len(keys), len(text)) == (192, 72)
        assert 3 * len({*keys, *text}) == 792

    def test_names(self, sd15: nn.Module) -> None:
        keys = {kohya_keys.unet_sd15(path) for path in lora_targets.unet_targets(sd15, "all")}
        assert {
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
            "lora_unet_up_blocks_3_attentions_2_proj_out",
            "lora_unet_down_blocks_0_downsamplers_0_conv",
            "lora_unet_up_blocks_1_resnets_0_conv_shortcut",
        } <= keys
        (text,) = text_keys("sd15", "transformer")
        assert text[3] == "lora_te_text_model_encoder_layers_0_self_attn_out_proj"
        assert text[-1] == "lora_te_text_model_encoder_layers_11_mlp_fc2"


class TestSdxl:
    @pytest.mark.slow
    def test_default_targets_are_those_of_the_reference_trainer(self, sdxl: nn.Module) -> None:
        keys = [kohya_keys.unet_sdxl(path) for path in lora_targets.unet_targets(sdxl, "transformer")]
        first, second = text_keys("sdxl", "transformer")
        assert (len(keys), len(first), len(second)) == (722, 72, 192)
        assert 3 * len({*keys, *first, *second}) == 2958

    def test_names(self, sdxl: nn.Module) -> None:
        keys = {kohya_keys.unet_sdxl(path) for path in lora_targets.unet_targets(sdxl, "all")}
        assert {
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            "lora_unet_middle_block_1_transformer_blocks_9_ff_net_2",
            "lora_unet_output_blocks_0_1_proj_in",
            "lora_unet_input_blocks_1_0_emb_layers_1",
            "lora_unet_input_blocks_3_0_op",
            "lora_unet_input_blocks_4_0_skip_connection",
            "lora_unet_middle_block_0_in_layers_2",
            "lora_unet_middle_block_2_out_layers_3",
            "lora_unet_output_blocks_2_2_conv",
            "lora_unet_output_blocks_8_0_skip_connection",
        } <= keys

    def test_every_key_is_a_name_of_the_original_unet(self, sdxl: nn.Module) -> None:
        resnet = r"0_(in_layers_2|emb_layers_1|out_layers_3|skip_connection)"
        transformer = (
            r"1_(proj_in|proj_out|transformer_blocks_\d_"
            r"(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2)))"
        )
        original = re.compile(
            rf"lora_unet_(input_blocks_[124578]_{resnet}|input_blocks_[4578]_{transformer}"
            rf"|input_blocks_[36]_0_op|middle_block_[02]_{resnet[2:]}|middle_block_{transformer}"
            rf"|output_blocks_[0-8]_{resnet}|output_blocks_[0-5]_{transformer}|output_blocks_[25]_2_conv)"
        )
        keys = [kohya_keys.unet_sdxl(path) for path in lora_targets.unet_targets(sdxl, "all")]
        assert [key for key in keys if not original.fullmatch(key)] == []

    @pytest.mark.parametrize("path", ["conv_in", "time_embedding.linear_1", "up_blocks.0.resnets.0.norm1"])
    def test_a_module_without_an_original_name_is_refused(self, path: str) -> None:
        with pytest.raises(ExportError, match=re.escape(path)):
            kohya_keys.unet_sdxl(path)


@pytest.mark.slow
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_diffusers_reads_every_unet_key_as_the_path_it_was_made_of(
    family: str, targets: TargetModules, request: pytest.FixtureRequest
) -> None:
    paths = lora_targets.unet_targets(request.getfixturevalue(family), targets)
    key_of = getattr(kohya_keys, f"unet_{family}")
    state = {
        f"{key_of(path)}.{part}.weight": f"{path}.{side}.weight"
        for path in paths
        for part, side in (("lora_down", "lora_A"), ("lora_up", "lora_B"))
    }
    mapped = _maybe_map_sgm_blocks_to_diffusers(state, SimpleNamespace(layers_per_block=2))
    converted, _ = _convert_non_diffusers_lora_to_diffusers(mapped)
    read = convert_unet_state_dict_to_peft({key.removeprefix("unet."): path for key, path in converted.items()})
    assert len(read) == 2 * len(paths)
    assert [(key, path) for key, path in read.items() if key != path] == []


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_each_choice_of_targets_contains_the_one_before(family: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(family)
    attention, transformer, everything = (set(lora_targets.unet_targets(module, targets)) for targets in TARGETS)
    assert attention < transformer < everything
    assert all(isinstance(module.get_submodule(path), nn.Linear) for path in attention)
    shapes = {module.get_submodule(path).weight.shape[2:] for path in transformer}
    assert shapes <= {torch.Size(), torch.Size((1, 1))}
    assert {"conv_in", "conv_out", "time_embedding.linear_1"}.isdisjoint(everything)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_text_encoder_targets(family: str) -> None:
    for prefix, module in text_encoders(family):
        attention = lora_targets.text_encoder_targets(module, "attention")
        transformer = lora_targets.text_encoder_targets(module, "transformer")
        layers = module.config.num_hidden_layers
        assert (len(attention), len(transformer)) == (4 * layers, 6 * layers)
        assert lora_targets.text_encoder_targets(module, "all") == transformer
        assert kohya_keys.text_encoder(prefix, transformer[0]).startswith(f"{prefix}_text_model_encoder_layers_0_")
