"""Hub ids, the Hugging Face cache and downloads."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import huggingface_hub.utils
import pytest
from hypothesis import given
from hypothesis.strategies import from_regex

from influencerai.basemodel import find_base_model, hub, search
from influencerai.errors import ModelError
from tests.hub_server import hub_server
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


@pytest.mark.parametrize("name", ["a/b--c", "a/b..c", "a/x.git", "a/" + "b" * 120])
def test_names_that_the_hub_has_not(name: str) -> None:
    assert search.hub_id_of(name) is None


@given(from_regex(r"[aB7é_.-]{1,5}(/[aB7_.-]{1,5}){0,2}|[a.-]{94,98}/[a_-]{94,98}", fullmatch=True))
def test_a_hub_id_is_one_to_the_hubs_client(name: str) -> None:
    if search.hub_id_of(name):
        utils: Any = huggingface_hub.utils  # whose names mypy takes for private
        utils.validate_repo_id(name)


@pytest.mark.parametrize("name", ["a/b", "org/name", "A1/b_c.d-e", "stabilityai/stable-diffusion-xl-base-1.0"])
def test_names_that_the_hub_has(name: str) -> None:
    assert search.hub_id_of(name) == name


def test_a_hub_out_of_reach_is_asked_once(online: None) -> None:
    with hub_server(Path()) as endpoint:
        pass
    before = time.monotonic()
    with pytest.raises(ModelError, match="org/name could not be downloaded: no network") as caught:
        hub.download("org/name", models_dirs=[Path("models")], endpoint=endpoint)
    assert "Errno" not in str(caught.value)
    assert "models/org/name" in str(caught.value.remedy)
    assert time.monotonic() - before < 5


def test_the_hub_cache(sd15: Path, hub_cache: Path, tmp_path: Path) -> None:
    snapshot = hub_cache / "models--org--name/snapshots" / ("0" * 40)
    shutil.copytree(sd15, snapshot)
    (refs := hub_cache / "models--org--name/refs").mkdir()
    (refs / "main").write_text("0" * 40)
    assert find_base_model("org/name", models_dirs=[tmp_path]).path == snapshot
    with pytest.raises(ModelError, match=r"the Hugging Face cache \(org/other\)"):
        find_base_model("org/other", models_dirs=[tmp_path])
    shutil.rmtree(snapshot / "vae")
    with pytest.raises(ModelError, match="lacks its vae"):
        find_base_model("org/name", models_dirs=[tmp_path])


def test_what_is_downloaded() -> None:
    """Of stable-diffusion-xl-base-1.0's 77 GB, the 14 GB that are used."""
    both = ["model.safetensors", "model.fp16.safetensors", "flax_model.msgpack", "model.onnx", "config.json"]
    files = [f"{folder}/{name}" for folder in ("text_encoder", "text_encoder_2") for name in both]
    files += ["sd_xl_base_1.0.safetensors", "README.md", "comfy/unet/config.json", "model_index.json"]
    files += ["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"]
    files += ["scheduler/scheduler_config.json", "unet/config.json", "vae_1_0/config.json"]
    files += [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    files += ["unet/diffusion_pytorch_model.safetensors.index.json", UNET.replace(".safe", ".fp16.safe")]
    files += ["vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"]
    files += ["unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.bin"]
    assert set(hub.needed_files(files)) == {
        "model_index.json",
        *(f"{folder}/{name}" for folder in ("text_encoder", "text_encoder_2") for name in (both[0], both[4])),
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        *(f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)),
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }


def test_download(sd15: Path, tmp_path: Path, online: None) -> None:
    (served := tmp_path / "served").mkdir()
    shutil.copytree(sd15, served / "org/name")
    (served / "org/name/unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (served / "org/name/huge.safetensors").write_bytes(b"not needed")
    (served / "org/single").mkdir()
    (served / "org/single/one.safetensors").write_bytes(b"single")
    with hub_server(served) as endpoint:
        folder = hub.download("org/name", models_dirs=[], endpoint=endpoint)
        with pytest.raises(ModelError, match=r"no model_index\.json.*one\.safetensors"):
            hub.download("org/single", models_dirs=[], endpoint=endpoint)
        with pytest.raises(ModelError, match="org/none could not be downloaded: the hub has no model of that name"):
            hub.download("org/none", models_dirs=[], endpoint=endpoint)
    assert find_base_model("org/name", models_dirs=[]).path == folder
    fetched = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert fetched == {str(path.relative_to(sd15)) for path in sd15.rglob("*") if path.is_file()}
    downloaded = find_base_model(str(folder), models_dirs=[])
    assert downloaded.fingerprint() == find_base_model(str(sd15), models_dirs=[]).fingerprint()


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"org/name could not be downloaded: .*HF_HUB_OFFLINE") as caught:
        find_base_model("org/name", models_dirs=[tmp_path / "models"], allow_download=True)
    assert str(tmp_path / "models/org/name") in str(caught.value.remedy)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever HF_HUB_OFFLINE says; the only hub that the tests ask is on this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
