"""States are written and read tensor by tensor: the bytes of before, and no second copy in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from influencerai.errors import CheckpointError
from influencerai.files import safetensors_file
from influencerai.train.runs.tensor_stream import read_tensors, tensors_sha256, write_tensors

STATE = '{"step":3}'
CLEAR_REFS = Path("/proc/self/clear_refs")


def mixed() -> dict[str, torch.Tensor]:
    return {
        "optimizer/step": torch.tensor(7.0),
        "optimizer/count": torch.arange(3),
        "adapter/up": torch.randn(4, 3, 1, 1),
        "adapter/down": torch.randn(3, 8).t(),
        "export/half": torch.randn(5).half(),
        "export/bf": torch.randn(5).bfloat16(),
        "optimizer/bytes": torch.arange(5, dtype=torch.uint8),
        "optimizer/flag": torch.tensor([True, False]),
        "optimizer/none": torch.empty(0),
    }


def test_the_bytes_are_those_of_the_safetensors_library_under_a_canonical_header(tmp_path: Path) -> None:
    tensors = mixed()
    body = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(STATE.encode() + safetensors_file.canonical_safetensors(body, {})).hexdigest()
    write_tensors(tmp_path / "state.safetensors", tensors, document=STATE)
    data = (tmp_path / "state.safetensors").read_bytes()
    assert data == safetensors_file.canonical_safetensors(body, {"state": STATE, "sha256": digest})
    assert tensors_sha256(tensors) == hashlib.sha256(safetensors_file.canonical_safetensors(body, {})).hexdigest()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    tensors = mixed()
    write_tensors(tmp_path / "state.safetensors", tensors, document=STATE)
    document, found = read_tensors(tmp_path / "state.safetensors")
    assert document == STATE
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, mixed(), document=STATE)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match its hash"):
        read_tensors(path)


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="needs Linux")
def test_a_state_is_never_in_memory_twice(tmp_path: Path) -> None:
    size = 64 * 2**20
    tensors = {f"adapter/{number}": torch.full((size // 16,), float(number)) for number in range(4)}
    path = tmp_path / "state.safetensors"
    before = _reset_peak()
    write_tensors(path, tensors, document=STATE)
    assert _peak() - before < 0.1 * size
    before = _reset_peak()
    _, found = read_tensors(path)
    assert _peak() - before < 1.1 * size
    assert len(found) == 4


def _reset_peak() -> int:
    CLEAR_REFS.write_text("5")
    return _peak()


def _peak() -> int:
    """Bytes of memory that this process has held at once since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
