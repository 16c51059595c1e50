"""Finding a base model, checking that it is whole, and fingerprints."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from influencerai.basemodel import find_base_model
from influencerai.basemodel.search import ALIASES
from influencerai.domain import TrainingOptions
from influencerai.errors import ModelError
from tests.small_models import small_sd15

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("sd15") / "model")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of the test's own: the user's may hold any model."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def copy(sd15: Path, tmp_path: Path) -> Path:
    """A copy of the small SD1.5 to damage."""
    return Path(shutil.copytree(sd15, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("sd15", "sd15"),
        ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sd15", "runwayml/stable-diffusion-v1-5"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("Lykon/dreamshaper-8", "Lykon/dreamshaper-8"),
        ("dreamshaper", "dreamshaper"),
    ],
)
def test_names_in_a_models_folder(name: str, place: str, sd15: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    models = tmp_path / "models"
    (models / place).parent.mkdir(parents=True)
    (models / place).symlink_to(sd15)
    base = find_base_model(name, models_dirs=[tmp_path / "missing", tmp_path / "empty", models])
    assert (base.path, base.name, base.layout, base.family) == (models / place, name, "diffusers", "sd15")
    assert (base.prediction_type, base.zero_terminal_snr) == ("epsilon", False)


def test_single_file_names_of_aliases(tmp_path: Path) -> None:
    for alias, name in (("sd15", "v1-5-pruned-emaonly"), ("sdxl", "sd_xl_base_1.0"), ("org/name", "org/name")):
        file = tmp_path / alias / f"{name}.safetensors"
        file.parent.mkdir(parents=True)
        save_file({"something": torch.zeros(1)}, file)
        with pytest.raises(ModelError, match="no known family") as caught:
            find_base_model(alias, models_dirs=[tmp_path / alias])
        assert str(file) in caught.value.message


def test_paths(sd15: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(sd15.parent))
    monkeypatch.chdir(sd15.parent)
    for name in (str(sd15), "model", "./model", "~/model"):
        assert find_base_model(name, models_dirs=[]).path.resolve() == sd15


@pytest.mark.parametrize("name", ["sdxl", "Nobody/has-this", "nothing", "a" * 255, "~nobody/x", "/no\0where"])
def test_not_found_says_where_it_looked(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_base_model(name, models_dirs=[tmp_path / "models"])
    assert f"no base model '{name}'" in caught.value.message
    assert str(tmp_path / "models") in str(caught.value)
    assert caught.value.remedy
    for place in ALIASES[name].places if name in ALIASES else ():
        assert str(tmp_path / "models" / place) in caught.value.message


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    fuse = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(fuse),)

    (tmp_path / "dreamshaper.ckpt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"state_dict": Bomb()}, tmp_path / "disguised.safetensors")
    torch.save(Bomb(), tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("dreamshaper", "dreamshaper.ckpt", "disguised", str(tmp_path / "old.safetensors")):
        with pytest.raises(ModelError, match="is a pickle") as caught:
            find_base_model(name, models_dirs=[tmp_path])
        assert "convert" in str(caught.value.remedy)
    assert not fuse.exists()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 7\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Log in</html>", "web page"),
        (b"GGUF\x03\0\0\0" + b"\0" * 64, "GGUF"),
        (b"\xff" * 64, "not a valid safetensors file"),
    ],
)
def test_other_formats_are_named(data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=what) as caught:
        find_base_model("model", models_dirs=[tmp_path])
    assert caught.value.remedy


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer"])
def test_missing_component(component: str, copy: Path) -> None:
    shutil.rmtree(copy / component)
    with pytest.raises(ModelError, match=f"lacks its {component}"):
        find_base_model(str(copy), models_dirs=[])


@pytest.mark.parametrize("missing", [UNET, "unet/config.json", "scheduler/scheduler_config.json"])
def test_missing_file(missing: str, copy: Path) -> None:
    (copy / missing).unlink()
    with pytest.raises(ModelError) as caught:
        find_base_model(str(copy), models_dirs=[])
    assert missing.rpartition("/")[2] in caught.value.message


def test_missing_vocabulary(copy: Path) -> None:
    for file in (copy / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()
    with pytest.raises(ModelError, match=r"tokenizer holds no vocab\.json"):
        find_base_model(str(copy), models_dirs=[])


def test_truncated_weights(copy: Path) -> None:
    with (copy / UNET).open("r+b") as file:
        file.truncate((copy / UNET).stat().st_size - 1)
    with pytest.raises(ModelError, match="truncated") as caught:
        find_base_model(str(copy), models_dirs=[])
    assert str(copy / UNET) in caught.value.message


def test_pickled_weights_in_a_folder(copy: Path) -> None:
    (copy / UNET).rename(copy / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickles only \(diffusion_pytorch_model\.bin\)"):
        find_base_model(str(copy), models_dirs=[])


@pytest.mark.parametrize(
    ("file", "changes", "text"),
    [
        ("unet/config.json", {"sample_size": 10**4000}, "its sample_size"),
        ("vae/config.json", {"block_out_channels": [8] * 9}, "its block_out_channels"),
        ("model_index.json", {"_class_name": "FluxPipeline"}, "is a FluxPipeline"),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "Inpaint"),
        ("model_index.json", {"text_encoder": ["transformers", "ChineseCLIPModel"]}, "ChineseCLIPModel"),
        ("model_index.json", {"text_encoder": [None, None]}, "refiner"),
        ("unet/config.json", {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "'sample'"),
    ],
)
def test_unsupported_folders(file: str, changes: dict[str, object], text: str, copy: Path) -> None:
    _edit(copy / file, **changes)
    with pytest.raises(ModelError, match=text) as caught:
        find_base_model(str(copy), models_dirs=[])
    assert caught.value.remedy


def test_damaged_json(copy: Path) -> None:
    (copy / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(ModelError, match=r"model_index\.json cannot be read"):
        find_base_model(str(copy), models_dirs=[])
    (copy / "model_index.json").write_text("[]")
    with pytest.raises(ModelError, match="no JSON object"):
        find_base_model(str(copy), models_dirs=[])


def test_deep_json(copy: Path) -> None:
    (copy / "unet/config.json").write_text('{"a":' * 100_000)
    with pytest.raises(ModelError, match=r"unet/config\.json cannot be read"):
        find_base_model(str(copy), models_dirs=[])


def test_what_is_no_file_of_a_tokenizer_is_left_out(copy: Path, sd15: Path) -> None:
    (copy / "tokenizer/.cache").mkdir()
    (copy / "tokenizer/gone").symlink_to(copy / "nowhere")
    base, original = (find_base_model(str(folder), models_dirs=[]) for folder in (copy, sd15))
    assert base.fingerprint() == original.fingerprint()
    os.mkfifo(copy / "tokenizer/pipe")
    with pytest.raises(ModelError, match="tokenizer/pipe is not a regular file"):
        find_base_model(str(copy), models_dirs=[])


@pytest.mark.parametrize(
    "weight_map", [None, 3, [], {}, {"a": 3}, {"a": "../../x.safetensors"}, {"a": "/x.safetensors"}]
)
def test_an_index_names_files_beside_it(weight_map: object, copy: Path) -> None:
    (copy / UNET).unlink()
    (copy / f"{UNET}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"index\.json is damaged: its weight_map"):
        find_base_model(str(copy), models_dirs=[])


def test_the_error_lists_a_path_a_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_base_model("absent.safetensors", models_dirs=[tmp_path])
    lines = caught.value.message.splitlines()
    assert lines[1:] == [f"  {tmp_path}/absent.safetensors", "  absent.safetensors"]
    for known in ("sd15", "sdxl", "influencerai/tiny-avatars"):
        assert known in str(caught.value.remedy)


def test_a_strangers_name_leads_nowhere_else(sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models := tmp_path / "models").mkdir()
    (models / "org").mkdir()
    (models / "org/name").symlink_to(sd15)
    (models / "plain").symlink_to(sd15)
    monkeypatch.chdir(sd15.parent)
    for name in ("org/name", "plain"):
        assert find_base_model(name, models_dirs=[models], as_path=False).path == models / name
    for name in (str(sd15), sd15.name, f"../{sd15.parent.name}/{sd15.name}", "..", "~", f"./{sd15.name}"):
        with pytest.raises(ModelError, match="no base model"):
            find_base_model(name, models_dirs=[models], as_path=False)


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"lacks model_index\.json"):
        find_base_model(str(tmp_path), models_dirs=[])
    (tmp_path / "real-model.safetensors").touch()
    with pytest.raises(ModelError, match=r"give that: .*real-model\.safetensors"):
        find_base_model(str(tmp_path), models_dirs=[])
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    with pytest.raises(ModelError, match="is a LoRA"):
        find_base_model(str(tmp_path), models_dirs=[])


def test_noise_schedule_of_a_folder(copy: Path) -> None:
    _edit(copy / "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    base = find_base_model(str(copy), models_dirs=[])
    assert (base.prediction_type, base.zero_terminal_snr) == ("v_prediction", True)


@pytest.mark.parametrize("own", [("epsilon", False), ("v_prediction", True)])
def test_options_win_over_what_the_model_says(own: tuple[str, bool], copy: Path) -> None:
    _edit(copy / "scheduler/scheduler_config.json", prediction_type=own[0], rescale_betas_zero_snr=own[1])
    base = find_base_model(str(copy), models_dirs=[])

    def found(**options: object) -> tuple[str, bool]:
        spec = base.spec(TrainingOptions.parse(options), side_multiple=16)
        assert (spec.name, spec.family, spec.side_multiple) == (str(copy), "sd15", 16)
        assert spec.fingerprint == base.fingerprint()
        return spec.prediction_type, spec.zero_terminal_snr

    assert found() == own
    for asked in (("epsilon", False), ("v_prediction", True)):
        assert found(predictionType=asked[0], zeroTerminalSnr=asked[1]) == asked


def test_fingerprints_follow_the_content(copy: Path, sd15: Path) -> None:
    base, original = (find_base_model(str(path), models_dirs=[]) for path in (copy, sd15))
    components = ("unet", "vae", "text_encoder", "tokenizer")
    before = {name: base.fingerprint(name) for name in components}
    assert before == {name: original.fingerprint(name) for name in components}
    assert base.fingerprint() == original.fingerprint()
    assert len(set(before.values())) == 4

    tensors = load_file(copy / "vae/diffusion_pytorch_model.safetensors")
    tensors["encoder.conv_in.bias"][0] += 1
    save_file(tensors, copy / "vae/diffusion_pytorch_model.safetensors", {"format": "pt"})
    _edit(copy / "tokenizer/tokenizer_config.json", model_max_length=32)
    after = {name: base.fingerprint(name) for name in components}
    changed = {name for name in components if after[name] != before[name]}
    assert changed == {"vae", "text_encoder", "tokenizer"}
    assert base.fingerprint() != original.fingerprint()


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
