from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import Invoke, json_lines

OUTPUT = "data/loras/described/described-final.safetensors"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoKr of another trainer, whose metadata is damaged in part."""
    path = tmp_path_factory.mktemp("foreign") / "lokr.safetensors"
    module = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    tensors = {f"{module}.lokr_w1": torch.ones(2, 2), f"{module}.lokr_w2": torch.ones(4, 4)}
    save_file(tensors, path, {"ss_base_model_version": "sdxl_base_v1-0", "ss_tag_frequency": "{oops"})
    return path


def test_a_file_of_ours(invoke: Invoke, project: Path) -> None:
    trained = invoke(
        *("train", "data/faces", "--model", "small", "--resolution", "128", "--epochs", "1", "--network-dim", "2"),
        *("--trigger-word", "ohwx", "--output-path", "data/loras/described", "--backend", "diffusers", "--json"),
    )
    assert trained.exit_code == 0, trained.output
    result = invoke("lora", "info", OUTPUT, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json_lines(result.stdout)
    assert (found["kind"], found["layout"], found["family"], found["ranks"]) == ("LoRA", "kohya", "sd15", [2])
    assert found["alphas"] == [float(found["metadata"]["ss_network_alpha"])]
    assert (found["components"], sum(found["targets"].values())) == ({"unet": found["modules"]}, found["modules"])
    assert (found["triggerPhrase"], found["baseModel"], found["epoch"]) == ("ohwx", "small", "1")
    assert "ComfyUI" in found["readers"]
    data = (project / OUTPUT).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    assert found["hashes"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert found["hashes"]["modelHash"] == hashlib.sha256(data[8 + length :]).hexdigest()
    assert found["hashes"]["modelHash"] == found["metadata"]["sshs_model_hash"]
    assert {"tag": "ohwx woman", "count": 3} in found["tags"]
    words = " ".join(invoke("lora", "info", OUTPUT).stdout.split())
    for text in ("LoRA, rank 2", "Trigger phrase ohwx", "Base model small", "kohya: for ComfyUI"):
        assert text in words


def test_a_file_of_another_trainer(invoke: Invoke, foreign: Path) -> None:
    (found,) = json_lines(invoke("lora", "info", foreign, "--json").stdout)
    assert (found["kind"], found["family"], found["modules"], found["tags"]) == ("LoKr", "sdxl", 1, [])
    assert (found["triggerPhrase"], found["baseModel"]) == (None, None)
    assert "`influencerai sample` do not apply it" in found["readers"]
    assert "LoKr" in invoke("lora", "info", foreign).stdout


def test_what_is_no_lora(invoke: Invoke, project: Path) -> None:
    result = invoke("lora", "info", project / "models/small/unet/diffusion_pytorch_model.safetensors")
    assert result.exit_code == 1
    assert "is no LoRA" in result.stderr
    absent = invoke("lora", "info", "absent.safetensors")
    assert absent.exit_code == 1
    assert "absent.safetensors" in absent.stderr
