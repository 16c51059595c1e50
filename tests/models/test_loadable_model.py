"""Loading the components of a diffusers folder, and what is refused when they are damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from influencerai.errors import ModelError
from influencerai.models.family import load_family
from influencerai.models.loadable_model import find_loadable_model
from tests.small_models import small_sd15, small_sdxl

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("sd15") / "model")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sdxl(tmp_path_factory.mktemp("sdxl") / "model")


@pytest.fixture
def copy(sd15: Path, tmp_path: Path) -> Path:
    """A copy of the small SD1.5 to damage."""
    return Path(shutil.copytree(sd15, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("model_index.json", {"unet": 3}),
        ("unet/config.json", {"block_out_channels": 3}),
        ("unet/config.json", {"sample_size": "x"}),
        ("unet/config.json", {"down_block_types": ["os.system"] * 2}),
        ("vae/config.json", {"block_out_channels": None}),
        ("vae/config.json", {"scaling_factor": "x"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "x"}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "x"}),
    ],
)
def test_a_damaged_configuration_is_named(file: str, changes: dict[str, object], copy: Path) -> None:
    _edit(copy / file, **changes)
    with pytest.raises(ModelError) as caught:
        _use(copy)
    assert str(copy) in caught.value.message
    assert (changes.keys() & {"unet"} or {file.split("/")[0]}).pop() in caught.value.message


def test_a_damaged_tokenizer_is_named(copy: Path) -> None:
    for path in (copy / "tokenizer").iterdir():
        path.write_text("garbage")
    with pytest.raises(ModelError, match=r"copy/tokenizer cannot be used"):
        find_loadable_model(str(copy), models_dirs=[]).load("tokenizer")


def test_an_adapter_among_the_weights_is_refused(copy: Path) -> None:
    base = find_loadable_model(str(copy), models_dirs=[])
    (copy / "text_encoder/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    for read in (
        base.fingerprint,
        lambda: base.load("text_encoder"),
        lambda: _use(copy),
    ):
        with pytest.raises(ModelError, match=r"text_encoder/adapter_config\.json would replace"):
            read()


@pytest.mark.slow
def test_load(sdxl: Path) -> None:
    base = find_loadable_model(str(sdxl), models_dirs=[])
    unet = base.load("unet", dtype=torch.bfloat16)
    assert not unet.training
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}
    saved = load_file(sdxl / UNET)
    for name, tensor in base.load("unet").state_dict().items():
        assert torch.equal(tensor, saved[name])
    assert base.load("tokenizer_2").pad_token == "!"
    assert base.config("unet")["projection_class_embeddings_input_dim"] == 96
    assert base.pipeline_config["_class_name"] == "StableDiffusionXLPipeline"
    with pytest.raises(ModelError, match="has no text_encoder_3"):
        base.load("text_encoder_3")


@pytest.mark.parametrize(("component", "file"), [("vae", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_a_missing_tensor_is_no_random_tensor(component: str, file: str, copy: Path) -> None:
    """Both libraries would fill it in and only log a warning."""
    path = copy / component / f"{file}.safetensors"
    tensors = load_file(path)
    dropped = next(name for name in tensors if "weight" in name)
    del tensors[dropped]
    save_file(tensors, path, {"format": "pt"})
    base = find_loadable_model(str(copy), models_dirs=[])
    with pytest.raises(ModelError, match="1 tensors are missing"):
        base.load(component)


@pytest.mark.slow
def test_half_precision_variant(copy: Path, sd15: Path) -> None:
    StableDiffusionPipeline.from_pretrained(sd15, safety_checker=None).to(torch.float16).save_pretrained(
        half := copy.parent / "half", variant="fp16"
    )
    assert (half / "unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    base = find_loadable_model(str(half), models_dirs=[])
    expected = find_loadable_model(str(sd15), models_dirs=[])
    for component in ("unet", "vae", "text_encoder"):
        _assert_equal(base.load(component), expected.load(component).half().float())
        assert base.fingerprint(component) != expected.fingerprint(component)
    plain = load_file(sd15 / UNET)
    save_file({name: tensor + 1 for name, tensor in plain.items()}, half / UNET, {"format": "pt"})
    assert torch.equal(base.load("unet").conv_in.weight, plain["conv_in.weight"] + 1)


@pytest.mark.slow
def test_sharded_weights(copy: Path, sd15: Path) -> None:
    base = find_loadable_model(str(copy), models_dirs=[])
    unet = base.load("unet")
    (copy / UNET).unlink()
    unet.save_pretrained(copy / "unet", max_shard_size="200KB")
    shards = sorted((copy / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    _assert_equal(find_loadable_model(str(copy), models_dirs=[]).load("unet"), unet)
    before = base.fingerprint("unet")
    with shards[-1].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert base.fingerprint("unet") != before
    shards[-1].unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        find_loadable_model(str(copy), models_dirs=[])


def _use(folder: Path) -> None:
    base = find_loadable_model(str(folder), models_dirs=[])
    family = load_family(base.family)
    family.sampling_scheduler(base)
    family.empty_denoiser(base)
    base.load("tokenizer")


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _assert_equal(ours: nn.Module, theirs: nn.Module) -> None:
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
