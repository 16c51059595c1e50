from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Invoke, json_lines
from tests.hub_server import hub_server

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hugging Face cache of the test's own, and no other hub than one on this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    ask(monkeypatch, "http://127.0.0.1:9")


def ask(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Set what HF_ENDPOINT sets when the hub's client is imported."""
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def models(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with a model, one with a licence in fp16 under an alias's name, a LoRA and a pickle."""
    folder = tmp_path / "models"
    monkeypatch.setenv("INFLUENCERAI_MODELS_DIR", str(folder))
    shutil.copytree(project / "models" / "small", folder / "org" / "plain")
    shutil.copytree(project / "models" / "small", folder / "sd15")
    (folder / "sd15" / "README.md").write_text("---\nlicense: openrail\ntags: []\n---\n# A model\n")
    halves = {name: tensor.half() for name, tensor in load_file(folder / "sd15" / UNET).items()}
    save_file(halves, folder / "sd15" / UNET, {"format": "pt"})
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 2)}, folder / "lora.safetensors")
    (folder / "sdxl.ckpt").write_bytes(b"\x80")
    return folder


def test_the_list(invoke: Invoke, models: Path) -> None:
    result = invoke("models", "list", "--json")
    assert result.exit_code == 0, result.output
    (document,) = json_lines(result.stdout)
    found = {model["name"]: model for model in document["models"]}
    assert found["org/plain"]["family"] == found["sd15"]["family"] == "sd15"
    assert (found["org/plain"]["precision"], found["sd15"]["precision"]) == ("fp32", "fp16")
    assert (found["org/plain"]["licence"], found["sd15"]["licence"]) == (None, "openrail")
    assert found["org/plain"]["sizeBytes"] == sum(p.stat().st_size for p in models.glob("org/plain/*/*.safetensors"))
    assert not found["lora"]["ok"]
    assert "is a LoRA" in found["lora"]["fault"]
    assert found["influencerai/tiny-avatars"]["ok"]
    aliases = {alias["alias"]: alias for alias in document["aliases"]}
    assert aliases["sd15"]["path"] == str(models / "sd15")
    assert aliases["sdxl"]["path"] is None
    assert str(models / "sdxl.safetensors") in aliases["sdxl"]["places"]


def test_the_list_in_words(invoke: Invoke, models: Path) -> None:
    output = " ".join(invoke("models", "list").stdout.split())
    assert f"sd15: {models / 'sd15'}" in output
    assert "sdxl is not here. Run: influencerai models get sdxl, or copy it to" in output
    assert f"{models / 'lora.safetensors'} is a LoRA" in output


def test_a_model_is_downloaded_and_then_there(
    invoke: Invoke, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUENCERAI_ALLOW_DOWNLOADS", "true")
    shutil.copytree(project / "models" / "small", tmp_path / "served" / "org" / "name")
    with hub_server(tmp_path / "served") as address:
        ask(monkeypatch, address)
        result = invoke("models", "get", "org/name", "--to", tmp_path / "root", "--json")
    assert result.exit_code == 0, result.output
    place = tmp_path / "root" / "models" / "org" / "name"
    assert json_lines(result.stdout)[-1] == {"type": "result", "name": "org/name", "path": str(place), "family": "sd15"}
    again = invoke("models", "get", "org/name", "--to", tmp_path / "root")
    assert again.exit_code == 0, "the hub is gone, and is not asked for a model that is here"
    assert str(place) in again.stdout


def test_an_interrupted_download_goes_on(
    invoke: Invoke, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUENCERAI_ALLOW_DOWNLOADS", "true")
    shutil.copytree(project / "models" / "small", tmp_path / "served" / "org" / "name")
    place = tmp_path / "root" / "models" / "org" / "name"
    place.mkdir(parents=True)
    shutil.copy(project / "models" / "small" / "model_index.json", place)
    with hub_server(tmp_path / "served") as address:
        ask(monkeypatch, address)
        assert invoke("models", "get", "org/name", "--to", tmp_path / "root").exit_code == 0
    assert (place / UNET).is_file()


def test_without_network_the_error_names_the_folder(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUENCERAI_ALLOW_DOWNLOADS", "true")
    result = invoke("models", "get", "sdxl", "--to", tmp_path)
    assert result.exit_code == 1
    text = " ".join(result.stderr.split())
    assert "could not be downloaded: no network" in text
    assert str(tmp_path / "models" / "stabilityai" / "stable-diffusion-xl-base-1.0") in text
    assert str(tmp_path / "models" / "sdxl.safetensors") in text
    assert "Errno" not in text
    assert "Traceback" not in text


def test_downloads_that_are_turned_off(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("models", "get", "sd15", "--to", tmp_path)
    assert result.exit_code == 1
    assert "downloads are turned off" in result.stderr
    assert str(tmp_path / "models") in result.stderr


def test_a_name_that_no_hub_has(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("models", "get", "nothing here", "--to", tmp_path)
    assert result.exit_code == 1
    assert "neither an alias nor a hub id" in result.stderr


@pytest.mark.parametrize("arguments", [["models", "list"], ["lora", "info", "x.safetensors"], ["doctor"]])
def test_torch_is_not_loaded(arguments: list[str], project: Path) -> None:
    code = (
        "import json, sys; from influencerai.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: print(json.dumps(sorted({'torch', 'diffusers', 'numpy'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
