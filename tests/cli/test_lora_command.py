from __future__ import annotations

import hashlib
import json
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


@pytest.mark.slow
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
    (of_folder,) = json_lines(invoke("lora", "info", "data/loras/described", "--json").stdout)
    (record,) = (path.parent for path in project.glob(".influencerai/runs/*-described-*/spec.json"))
    (of_record,) = json_lines(invoke("lora", "info", record, "--json").stdout)
    assert of_folder == of_record == found
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


def header(name: str, *, data: int = 64) -> bytes:
    """A .safetensors file of one tensor of 64 bytes, of which `data` are there."""
    entry = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}
    text = json.dumps({name: entry}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


DOWN = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
USELESS = (
    ("x.txt", b"hello", "not a valid safetensors file", "Give a .safetensors file"),
    ("noname", b"hello", "not a valid safetensors file", "Give a .safetensors file"),
    ("empty.safetensors", b"", "is empty", "Download"),
    ("page.safetensors", b"<!doctype html><title>Log in</title>", "a web page", "in a browser"),
    ("model.ckpt", header(DOWN), "is a pickle", ".safetensors"),
    ("model.PT", b"\x80\x02", "is a pickle", ".safetensors"),
    ("renamed.safetensors", b"PK\x03\x04" + bytes(range(1, 40)), "is a pickle", ".safetensors"),
    ("short.safetensors", header(DOWN, data=20), "is truncated", "Download"),
    ("base.safetensors", header("model.diffusion_model.out.2.bias"), "a base model, not a LoRA", "--model"),
    ("other.safetensors", header("some.tensor"), "is no LoRA", "Give a LoRA"),
    ("folder", None, "folder", "Name a"),
    ("folder.safetensors", None, "folder", "Name a"),
    ("shrot.safetensors", b"", "does not exist", "Did you mean"),
)
"""A name, what the file holds, what is said of it, and what to do."""


@pytest.mark.parametrize(
    "command",
    [
        ("lora", "info", "FILE"),
        ("sample", "FILE", "--prompt", "ohwx"),
        ("train", "data/faces", "--model", "small", "--init-from", "FILE"),
    ],
    ids=["info", "sample", "init-from"],
)
def test_a_file_that_is_no_lora_is_refused_by_what_it_is(
    invoke: Invoke, project: Path, command: tuple[str, ...]
) -> None:
    folder = project / "useless"
    folder.mkdir(exist_ok=True)
    for name, content, reason, remedy in USELESS:
        if content is None:
            (folder / name).mkdir(exist_ok=True)
        elif reason != "does not exist":
            (folder / name).write_bytes(content)
        done = invoke(*(f"useless/{name}" if part == "FILE" else part for part in command))
        said = " ".join(done.stderr.split())
        assert (done.exit_code, reason in said, remedy in said) == (1, True, True), (name, said)
        assert name in said
    assert invoke(*("" if part == "FILE" else part for part in command)).exit_code == 2


def test_a_base_model_that_is_no_file_of_weights_is_refused_by_what_it_is(invoke: Invoke, project: Path) -> None:
    (project / "useless").mkdir(exist_ok=True)
    for name, content, reason, remedy in USELESS:
        if content is not None and DOWN.encode() not in content and "LoRA" not in reason + remedy:
            (project / "useless" / name).write_bytes(content)
            said = invoke("train", "data/faces", "--model", str(project / "useless" / name)).stderr
            if reason != "does not exist":
                assert (reason in said, remedy in said) == (True, True), (name, said)


def test_a_training_starts_with_one_lora_of_its_rank(invoke: Invoke, project: Path, foreign: Path) -> None:
    folder = project / "several"
    folder.mkdir(exist_ok=True)
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(header(DOWN))
    train = ("train", "data/faces", "--model", "small", "--network-dim", "8", "--init-from")
    assert "it holds 2, such as a.safetensors" in " ".join(invoke(*train, "several").stderr.split())
    assert "networkDim 4 -> 8" in invoke(*train, "several/a.safetensors").stderr
    assert "is a LoKr" in invoke(*train, foreign).stderr
