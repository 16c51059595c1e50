"""Single-file models: SD1.5 in the LDM layout, SDXL in the sgm layout."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influencerai.basemodel.components import COMPONENTS, CONFIGS, read_config
from influencerai.errors import ModelError
from influencerai.models.loadable_model import LoadableModel, find_loadable_model
from influencerai.models.model_components import MODULES, empty_module
from tests.original_layout import original_tensors, save_hollow_file, save_single_file
from tests.small_models import small_sd15, small_sdxl

FAMILIES = ("sd15", "sdxl")


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
    for family in FAMILIES:
        base = find_loadable_model(str(configs / family), models_dirs=[])
        modules = {name: base.load(name) for name in COMPONENTS[family] if name in MODULES}
        found[family] = original_tensors(family, modules)
    return found


@pytest.fixture(scope="module")
def full_size() -> dict[str, dict[str, Tensor]]:
    """The real architectures' tensors on the meta device under their original names, by family."""
    return {family: original_tensors(family, _full_size_modules(family)) for family in FAMILIES}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError(f"something asked the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_arrives(
    family: str, configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    path = save_single_file(originals[family], tmp_path / "model.safetensors")
    folder = find_loadable_model(str(configs / family), models_dirs=[])
    single = find_loadable_model(str(path), models_dirs=[], configs=configs)
    assert (single.layout, single.family) == ("single_file", family)
    assert (single.prediction_type, single.zero_terminal_snr) == ("epsilon", False)
    for component in COMPONENTS[family]:
        ours, theirs = single.load(component), folder.load(component)
        if component not in MODULES:
            assert ours("ohwx woman").input_ids == theirs("ohwx woman").input_ids
            continue
        assert not ours.training
        _assert_equal_weights(ours, theirs)
    _assert_equal_outputs(single, folder)


def test_values_survive_in_half_precision(
    configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in originals["sdxl"].items()}
    path = save_single_file(halves, tmp_path / "model.safetensors")
    single = find_loadable_model(str(path), models_dirs=[], configs=configs)
    expected = find_loadable_model(str(configs / "sdxl"), models_dirs=[]).load("text_encoder_2")
    for dtype in (torch.float16, torch.float32):
        loaded = single.load("text_encoder_2", dtype=dtype)
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
        _assert_equal_weights(loaded.float(), expected.half().float())


@pytest.mark.slow
def test_old_text_encoder_names(configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    """Files from the time of transformers 4.18 have no `text_model.` in the names of CLIP."""
    old = {name.replace("transformer.text_model.", "transformer."): t for name, t in originals["sd15"].items()}
    single = find_loadable_model(
        str(save_single_file(old, tmp_path / "old.safetensors")), models_dirs=[], configs=configs
    )
    expected = find_loadable_model(str(configs / "sd15"), models_dirs=[]).load("text_encoder")
    _assert_equal_weights(single.load("text_encoder"), expected)


@pytest.mark.parametrize(
    ("extra", "metadata", "expected"),
    [
        ({}, {}, ("epsilon", False)),
        ({"v_pred": torch.empty(0)}, {}, ("v_prediction", False)),
        ({"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, {}, ("v_prediction", True)),
        ({}, {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ({}, {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
    ],
)
def test_prediction_markers(
    extra: dict[str, Tensor],
    metadata: dict[str, str],
    expected: tuple[str, bool],
    configs: Path,
    originals: dict[str, dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    path = save_single_file(originals["sdxl"] | extra, tmp_path / "model.safetensors", metadata)
    base = find_loadable_model(str(path), models_dirs=[], configs=configs)
    assert (base.prediction_type, base.zero_terminal_snr) == expected


@pytest.mark.slow
def test_full_size_architectures() -> None:
    """Parameter counts that the models' papers and cards state."""
    counts = {
        (family, component): sum(parameter.numel() for parameter in module.parameters())
        for family in FAMILIES
        for component, module in _full_size_modules(family).items()
    }
    assert counts == {
        ("sd15", "unet"): 859_520_964,
        ("sd15", "vae"): 83_653_863,
        ("sd15", "text_encoder"): 123_060_480,
        ("sdxl", "unet"): 2_567_463_684,
        ("sdxl", "vae"): 83_653_863,
        ("sdxl", "text_encoder"): 123_060_480,
        ("sdxl", "text_encoder_2"): 694_659_840,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("family", "tensors"), [("sd15", 1131), ("sdxl", 2515)])
def test_full_size_files(family: str, tensors: int, full_size: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    """v1-5-pruned-emaonly and sd_xl_base_1.0 hold so many tensors; all of their names and shapes are understood."""
    assert len(full_size[family]) == tensors
    path = save_hollow_file(full_size[family], tmp_path / "model.safetensors")
    base = find_loadable_model(str(path), models_dirs=[])
    assert (base.family, base.configs) == (family, CONFIGS / family)
    assert base.load("tokenizer").model_max_length == 77


def test_names_are_those_of_real_checkpoints(full_size: dict[str, dict[str, Tensor]]) -> None:
    known = {
        "sd15": {
            "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
            "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
            "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
            "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
            "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
            "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.weight": (768, 3072),
        },
        "sdxl": {
            "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
            "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
            "model.diffusion_model.output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
            "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
            "conditioner.embedders.1.model.text_projection": (1280, 1280),
        },
    }
    for family, shapes in known.items():
        assert {name: tuple(full_size[family][name].shape) for name in shapes} == shapes


@pytest.mark.slow
def test_other_families_are_refused(full_size: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    one = torch.zeros(1)
    sd15 = full_size["sd15"]
    cases: list[tuple[str, dict[str, Tensor]]] = [
        ("Stable Diffusion 2", {"cond_stage_model.model.ln_final.weight": one}),
        ("the SDXL refiner", {"conditioner.embedders.0.model.ln_final.weight": one}),
        ("FLUX", {"double_blocks.0.img_attn.norm.key_norm.scale": one}),
        ("Stable Diffusion 3", {"model.diffusion_model.joint_blocks.0.x.weight": one}),
        ("ControlNet", {"control_model.time_embed.0.weight": one}),
        ("EDM", {"edm_mean": one, **full_size["sdxl"]}),
        ("is a LoRA", {"lora_unet_down_blocks_0.lora_down.weight": one}),
        ("is a LoRA", {"unet.down_blocks.0.to_q.lora_A.weight": one}),
        ("only a VAE", {"first_stage_model.encoder.conv_in.weight": one}),
        ("one component of a diffusers folder", {"down_blocks.0.resnets.0.conv1.weight": one}),
        ("no known family", {"something.weight": one}),
        ("holds no vae", {n: t for n, t in sd15.items() if not n.startswith("first_stage")}),
    ]
    inpainting = "model.diffusion_model.input_blocks.0.0.weight"
    cases.append(("inpainting", sd15 | {inpainting: torch.empty(320, 9, 3, 3, device="meta")}))
    narrow = "model.diffusion_model.output_blocks.11.0.skip_connection.weight"
    cases.append(("shape", sd15 | {narrow: torch.empty(320, 64, 1, 1, device="meta")}))
    pruned = "model.diffusion_model.middle_block.1.proj_in.weight"
    cases.append(("lacks 1 tensors of the unet", {n: t for n, t in sd15.items() if n != pruned}))
    time = "model.diffusion_model.label_emb.0.0.weight"
    cases.append(("lacks 1 tensors", {n: t for n, t in full_size["sdxl"].items() if n != time}))
    for number, (text, tensors) in enumerate(cases):
        path = save_hollow_file(tensors, tmp_path / f"{number}.safetensors")
        with pytest.raises(ModelError, match=text) as caught:
            find_loadable_model(str(path), models_dirs=[])
        assert str(path) in caught.value.message
        assert caught.value.remedy


def test_truncated(full_size: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    path = save_hollow_file(full_size["sd15"], tmp_path / "model.safetensors")
    for size in (path.stat().st_size - 1, 10_000, 5, 0):
        with path.open("r+b") as file:
            file.truncate(size)
        with pytest.raises(ModelError, match=r"model\.safetensors") as caught:
            find_loadable_model(str(path), models_dirs=[])
        assert caught.value.remedy


def test_cut_off_after_it_was_found(configs: Path, originals: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    path = save_single_file(originals["sd15"], tmp_path / "model.safetensors")
    base = find_loadable_model(str(path), models_dirs=[], configs=configs)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated"):
        base.load("unet")


def _full_size_modules(family: str) -> dict[str, nn.Module]:
    return {
        component: empty_module(component, read_config(CONFIGS / family, component))
        for component in COMPONENTS[family]
        if component in MODULES
    }


def _assert_equal_weights(ours: nn.Module, theirs: nn.Module) -> None:
    expected = theirs.state_dict()
    found = ours.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def _assert_equal_outputs(ours: LoadableModel, theirs: LoadableModel) -> None:
    """Buffers, which state_dict leaves out, decide outputs as well."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 500, (2, 77), generator=generator)
    pixels = torch.randn(1, 3, 32, 32, generator=generator)
    with torch.no_grad():
        for component in ("text_encoder", "text_encoder_2"):
            if component in COMPONENTS[ours.family]:
                first, second = (base.load(component)(ids)[0] for base in (ours, theirs))
                torch.testing.assert_close(first, second, rtol=0, atol=0)
        first, second = (base.load("vae").encode(pixels).latent_dist.mean for base in (ours, theirs))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
