"""Tensors to a safetensors file and back, one at a time: a state is never in memory twice."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from influencerai.errors import CheckpointError
from influencerai.files import atomic_file, safetensors_file
from influencerai.files.safetensors_file import TensorEntry

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, document: str) -> None:
    """Write `tensors` with `document` and their common hash in the header, whole or not at all.

    The tensors are read twice, for the hash and for the file, and must not change meanwhile.

    Raises:
        InfluencerAIError: the file system refuses.
    """
    entries = _entries(tensors)
    metadata = {"state": document, "sha256": tensors_sha256(tensors, document=document)}

    def parts() -> Iterator[bytes | memoryview]:
        yield safetensors_file.safetensors_header(entries, metadata)
        for name in entries:
            yield _bytes(tensors[name])

    atomic_file.write_atomic(path, parts())


def read_tensors(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The document and the tensors of a file that `write_tensors` wrote.

    Raises:
        CheckpointError: the file is no safetensors file, or its content does not match its hash.
        KeyError, OSError: the file is of another format, or cannot be read.
    """
    metadata, entries = safetensors_file.read_safetensors_header(path, error=CheckpointError)
    document, expected = metadata["state"], metadata["sha256"]
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end, item[0])))
    digest = _digest(document, ordered)
    tensors = {}
    with path.open("rb") as file:
        file.seek(8 + struct.unpack("<Q", file.read(8))[0])
        for name, entry in ordered.items():
            tensor = torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
            view = _bytes(tensor)
            if file.readinto(view) != len(view):
                raise CheckpointError(f"The state {path} is damaged: it ends inside its tensors.")
            digest.update(view)
            tensors[name] = tensor
    if digest.hexdigest() != expected:
        raise CheckpointError(f"The state {path} is damaged: its content does not match its hash.")
    return document, tensors


def tensors_sha256(tensors: Mapping[str, Tensor], *, document: str = "") -> str:
    """SHA-256 over `document` and the canonical safetensors file of `tensors` without metadata."""
    entries = _entries(tensors)
    digest = _digest(document, entries)
    for name in entries:
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _entries(tensors: Mapping[str, Tensor]) -> dict[str, TensorEntry]:
    """The entries of a header, in the order in which the safetensors library lays tensors out."""
    samples = safetensors.torch.save({name: torch.zeros(1, dtype=tensor.dtype) for name, tensor in tensors.items()})
    header = json.loads(samples[8 : 8 + struct.unpack_from("<Q", samples)[0]])
    found: dict[str, TensorEntry] = {}
    begin = 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"][0]):
        end = begin + tensors[name].numel() * tensors[name].element_size()
        found[name] = TensorEntry(header[name]["dtype"], tuple(tensors[name].shape), begin, end)
        begin = end
    return found


def _digest(document: str, entries: Mapping[str, TensorEntry]) -> hashlib._Hash:
    """SHA-256 over the document and the tensors' names and shapes; their bytes follow."""
    return hashlib.sha256(document.encode() + safetensors_file.safetensors_header(entries, {}))


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, without a copy where it is contiguous and on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data
