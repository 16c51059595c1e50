"""Safetensors files: canonical bytes, checked headers, and the hashes that other programs compute."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from influencerai.errors import ExportError, InfluencerAIError
from influencerai.files.atomic_file import open_regular

_MAX_HEADER_BYTES = 100_000_000
_MAX_SIDES = 8
_DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


class TensorEntry(NamedTuple):
    """One tensor of a safetensors header; `begin` and `end` are byte offsets from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def canonical_safetensors(serialized: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same tensors under a header that depends only on tensors and metadata.

    The safetensors library writes `__metadata__` in a random order; here it comes first with sorted keys,
    the tensors follow in the order of their data, and spaces align the data to 8 bytes. Metadata in
    `serialized` is dropped.
    """
    start = _data_offset(serialized)
    header = json.loads(serialized[8:start])
    header.pop("__metadata__", None)
    entries = {name: _entry(entry) for name, entry in header.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end, item[0])))
    return safetensors_header(ordered, metadata) + serialized[start:]


def safetensors_header(entries: Mapping[str, TensorEntry], metadata: Mapping[str, str]) -> bytes:
    """The bytes before the data of a canonical file; `entries` in the order of their data."""
    document: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for name, entry in entries.items():
        document[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": (entry.begin, entry.end)}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def model_hash(serialized: bytes) -> str:
    """SHA-256 of all bytes after the header: kohya's `sshs_model_hash`, ModelSpec's `hash_sha256`."""
    return hashlib.sha256(memoryview(serialized)[_data_offset(serialized) :]).hexdigest()


def model_hash_of_file(path: Path) -> str:
    """`model_hash` of a file, whatever its size.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        file.seek(8 + struct.unpack("<Q", file.read(8))[0])
        digest = hashlib.sha256()
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def legacy_hash(serialized: bytes) -> str:
    """AUTOMATIC1111's old short hash, kohya's `sshs_legacy_hash`: 8 digits, over 64 KiB at offset 1 MiB."""
    return hashlib.sha256(serialized[0x100000:0x110000]).hexdigest()[:8]


def read_safetensors_header(
    path: Path, *, max_bytes: int = _MAX_HEADER_BYTES, error: type[InfluencerAIError] = ExportError
) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    """A file's metadata and tensors, in the header's order, without reading the tensors.

    The header is checked against the file: every tensor's bytes must exist, without gaps, overlaps or a rest.

    Raises:
        error: the file cannot be opened, is truncated or oversized, or is not a safetensors file.
    """
    remedy = "Download or copy the file again, and compare its size with the original's."
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
            if length is None or not prefix.strip(b"\0"):
                raise error(f"{path} is not a valid safetensors file: it has no header.", remedy=remedy)
            if length > max_bytes:
                raise error(
                    f"{path} is not a valid safetensors file: its header would be {length:,} bytes long, the limit "
                    f"is {max_bytes:,}.",
                    remedy=remedy,
                )
            text = file.read(length)
    except OSError as failure:
        raise error(f"{path} cannot be read: {failure.strerror or failure}.") from failure
    if len(text) < length:
        raise error(f"{path} is truncated: it ends inside its header.", remedy=remedy)
    try:
        header = json.loads(text)
        metadata = {str(name): str(value) for name, value in header.pop("__metadata__", {}).items()}
        entries = {name: _entry(entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        raise error(f"{path} is not a valid safetensors file: its header cannot be parsed.", remedy=remedy) from failure
    _check_extent(path, entries, size - 8 - length, error=error, remedy=remedy)
    return metadata, entries


def _data_offset(serialized: bytes) -> int:
    return 8 + int(struct.unpack_from("<Q", serialized)[0])


def _entry(entry: Any) -> TensorEntry:
    """One entry of a header, validated: JSON allows numbers and shapes that no tensor has."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPE_BITS or not isinstance(shape, list) or len(shape) > _MAX_SIDES:
        raise ValueError("a tensor of an unknown dtype or shape")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end)):
        raise ValueError("a side or an offset that is not a whole number in range")
    return TensorEntry(dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _check_extent(
    path: Path,
    entries: Mapping[str, TensorEntry],
    data_bytes: int,
    *,
    error: type[InfluencerAIError],
    remedy: str,
) -> None:
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        bits = _DTYPE_BITS[entry.dtype] * math.prod(entry.shape)
        if entry.begin != position or 8 * (entry.end - entry.begin) != bits:
            raise error(
                f"{path} is not a valid safetensors file: its header misplaces the tensor '{name}'.", remedy=remedy
            )
        position = entry.end
    if position > data_bytes:
        raise error(f"{path} is truncated: {data_bytes:,} of {position:,} bytes of tensors are present.", remedy=remedy)
    if position < data_bytes:
        raise error(f"{path} is damaged: {data_bytes - position:,} bytes follow its last tensor.", remedy=remedy)
