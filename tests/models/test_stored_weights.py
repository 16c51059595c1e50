"""Scaled fp8 weights are loaded at their true size; old names are read; what is not used is a warning of the plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from influencerai.basemodel import find_base_model
from influencerai.errors import ModelError
from influencerai.models.loadable_model import find_loadable_model
from influencerai.preflight import preflight
from influencerai.train.trainer import Trainer
from tests.original_layout import original_tensors, save_single_file
from tests.small_models import small_sd15, small_sdxl
from tests.training_runs import make_config, make_settings, write_dataset

UNET = "unet/diffusion_pytorch_model.safetensors"
ATTENTION = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
MAX_FP8 = 448.0


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small diffusers folder per family: as a model, and as the configurations of small single files."""
    root = tmp_path_factory.mktemp("configs")
    small_sd15(root / "sd15")
    small_sdxl(root / "sdxl")
    return root


@pytest.fixture(scope="module")
def originals(configs: Path) -> dict[str, dict[str, Tensor]]:
    """The small models' tensors under their original names, by family."""
    found = {}
    for family, names in {"sd15": ["text_encoder"], "sdxl": ["text_encoder", "text_encoder_2"]}.items():
        base = find_loadable_model(str(configs / family), models_dirs=[])
        found[family] = original_tensors(family, {name: base.load(name) for name in ("unet", "vae", *names)})
    return found


def scaled(tensors: Mapping[str, Tensor], *, style: str, rows: bool = False) -> dict[str, Tensor]:
    """Every 2-D weight in fp8 with a scale beside it, as ComfyUI's tools write it."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if tensor.ndim != 2 or leaf not in ("weight", "in_proj_weight") or "embedding" in name:
            found[name] = tensor
            continue
        scale = tensor.abs().amax(dim=1, keepdim=True) / MAX_FP8 if rows else tensor.abs().amax() / MAX_FP8
        found[name] = (tensor / scale).to(torch.float8_e4m3fn)
        found[f"{module}.scale_weight" if style == "old" and leaf == "weight" else f"{name}_scale"] = scale
        if style == "marked":
            found[f"{module}.input_scale"] = torch.ones(())
            if leaf == "weight":
                document = json.dumps({"format": "float8_e4m3fn"}).encode()
                found[f"{module}.comfy_quant"] = torch.tensor(list(document), dtype=torch.uint8)
    if style == "old":
        found["model.diffusion_model.scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    return found


def assert_close(ours: Any, theirs: Any) -> None:
    """Equal up to what fp8 rounds: 2^-4 of a number."""
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0.07, atol=1e-3 * float(expected[name].abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(("style", "rows"), [("old", False), ("new", False), ("new", True), ("marked", False)])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_scaled_fp8_in_a_single_file_is_dequantised(
    family: str, style: str, rows: bool, configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    path = save_single_file(scaled(originals[family], style=style, rows=rows), tmp_path / "model.safetensors")
    base = find_loadable_model(str(path), models_dirs=[], configs=configs)
    plain = find_loadable_model(str(configs / family), models_dirs=[])
    assert base.warnings == ()
    for component in ("unet", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else [])):
        assert_close(base.load(component), plain.load(component))


@pytest.mark.slow
def test_scaled_fp8_in_a_folder_is_dequantised(configs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(configs / "sd15", tmp_path / "copy"))
    save_file(scaled(load_file(copy / UNET), style="new"), copy / UNET, {"format": "pt"})
    base = find_loadable_model(str(copy), models_dirs=[])
    plain = find_loadable_model(str(configs / "sd15"), models_dirs=[]).load("unet")
    assert base.warnings == ()
    assert_close(base.load("unet"), plain)
    half = base.load("unet", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert_close(half.float(), plain)


def test_fp8_without_scales_is_read_as_it_is(
    configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    plain = {name: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t for name, t in originals["sd15"].items()}
    base = find_loadable_model(
        str(save_single_file(plain, tmp_path / "model.safetensors")), models_dirs=[], configs=configs
    )
    assert (base.warnings, base.load("unet").conv_in.weight.dtype) == ((), torch.float32)


@pytest.mark.slow
def test_old_names_are_read(configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    """A VAE's attention as diffusers called it, then and now, and OpenCLIP's projection as a Linear."""
    old, new = dict(originals["sdxl"]), dict(originals["sdxl"])
    for tensors, names in ((old, ("query", "key", "value", "proj_attn")), (new, ("to_q", "to_k", "to_v", "to_out.0"))):
        for name in [name for name in tensors if ".mid.attn_1." in name]:
            module, part, leaf = name.rsplit(".", 2)
            renamed = dict(zip(("q", "k", "v", "proj_out"), names, strict=True)).get(part, part)
            tensor = tensors.pop(name)
            tensors[f"{module}.{renamed}.{leaf}"] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        projection = tensors.pop("conditioner.embedders.1.model.text_projection")
        tensors["conditioner.embedders.1.model.text_projection.weight"] = projection.T.contiguous()
        path = save_single_file(tensors, tmp_path / f"{names[0]}.safetensors")
        base = find_loadable_model(str(path), models_dirs=[], configs=configs)
        plain = find_loadable_model(str(configs / "sdxl"), models_dirs=[])
        assert base.warnings == ()
        for component in ("vae", "text_encoder_2"):
            expected = plain.load(component).state_dict()
            assert all(torch.equal(t, expected[name]) for name, t in base.load(component).state_dict().items())


def test_diffusers_names_inside_a_single_file_are_read(
    configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    vae = load_file(configs / "sd15/vae/diffusion_pytorch_model.safetensors")
    tensors = {name: t for name, t in originals["sd15"].items() if not name.startswith("first_stage_model.")}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in vae.items()}
    path = save_single_file(tensors, tmp_path / "model.safetensors")
    loaded = find_loadable_model(str(path), models_dirs=[], configs=configs).load("vae").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in vae.items())


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({f"{ATTENTION}.strange": torch.ones(2)}, "1 tensors of its unet are not used, such as"),
        ({"model.diffusion_model.strange.0.weight": torch.ones(2)}, "1 tensors of its unet are not used"),
        (
            {"lora_unet_x.lora_down.weight": torch.ones(2), "lora_unet_x.alpha": torch.ones(())},
            "2 tensors of its leftover adapter",
        ),
        (
            {
                "cond_stage_model.logit_scale": torch.ones(()),
                "cond_stage_model.transformer.logit_scale": torch.ones(()),
            },
            "",
        ),
        ({"cond_stage_model.transformer.text_projection.weight": torch.ones(2, 2)}, ""),
        ({"model_ema.decay": torch.ones(())}, ""),
    ],
    ids=["leaf", "module", "leftover LoRA", "constants", "CLIP's projection", "EMA"],
)
def test_what_is_not_used_is_one_warning_of_the_plan(
    extra: dict[str, Tensor],
    expected: str,
    configs: Path,
    originals: dict[str, dict[str, Tensor]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = save_single_file(originals["sd15"] | extra, tmp_path / "model.safetensors")
    base = find_loadable_model(str(path), models_dirs=[], configs=configs)
    assert len(base.warnings) == bool(expected)
    assert all(expected in text and str(path) in text for text in base.warnings)
    base.load("unet")
    assert not caplog.records


def test_plan_and_preflight_have_the_warning(configs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(configs / "sd15", tmp_path / "copy"))
    save_file(load_file(copy / UNET) | {"conv_in.strange": torch.ones(2)}, copy / UNET, {"format": "pt"})
    dataset = write_dataset(tmp_path / "dataset", count=2)
    config, settings = make_config(str(copy)), make_settings(tmp_path)
    for warnings in (
        Trainer(config, settings=settings).prepare(dataset).warnings,
        preflight(config, dataset, settings=settings, as_path=True).warnings,
    ):
        assert sum("1 tensors of its unet are not used, such as 'conv_in.strange'" in text for text in warnings) == 1


@pytest.mark.parametrize("variant", ["bf16", "fp32", "ema_only", "fp8_e4m3fn"])
def test_a_folder_of_one_variant(variant: str, configs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(configs / "sd15", tmp_path / "copy"))
    for file in copy.glob("*/*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", f".{variant}.safetensors")))
    base = find_loadable_model(str(copy), models_dirs=[])
    expected = load_file(configs / "sd15" / UNET)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in base.load("unet").state_dict().items())


def test_variants_among_which_nobody_chose(configs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(configs / "sd15", tmp_path / "copy"))
    shutil.copy(copy / UNET, (copy / UNET).with_suffix(".non_ema.safetensors"))
    (copy / UNET).rename((copy / UNET).with_suffix(".ema_only.safetensors"))
    with pytest.raises(ModelError, match=r"several variants \(ema_only, non_ema\)") as caught:
        find_base_model(str(copy), models_dirs=[])
    assert "Rename" in str(caught.value.remedy)
