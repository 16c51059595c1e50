"""A run's files: written whole or not at all, the same bytes for the same content, in a folder of its own."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import secrets
import stat
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from influencerai import file_system
from influencerai.domain.output_path import RUN_MARKER as RUN_MARKER
from influencerai.errors import ExportError, InfluencerAIError

_TEMPORARY = ".influencerai-{}.tmp"
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


def write_atomic(path: Path, data: bytes | Iterable[bytes | memoryview], *, sync: bool = True) -> None:
    """Write `data` to `path` so that a reader, or a crash, finds the old file or the new one, never a part.

    An iterable's parts are written one after the other.

    The folder is made where it is missing. `sync` waits until bytes and name are on the disk; without it a
    power cut may lose the file.

    Raises:
        InfluencerAIError: the file system refuses, such as for want of space or permission.
    """
    temporary = path.parent / _TEMPORARY.format(secrets.token_hex(8))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            for part in (data,) if isinstance(data, bytes) else data:
                file.write(part)
            if sync:
                file.flush()
                file_system.sync(file.fileno())
        temporary.replace(path)
        if sync:
            file_system.sync_folder(path.parent)
    except OSError as error:
        raise InfluencerAIError(
            f"{path} cannot be written: {file_system.refusal(error, path.parent)}.",
            remedy="Free space on that disk, or choose a folder that you may write to.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_beside(name: str) -> str:
    """A name in the folder of the file `name`; what has it is removed by `remove_leftovers`."""
    return str(PurePosixPath(name).with_name(_TEMPORARY.format(secrets.token_hex(8))))


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> int:
    """Delete what interrupted writes left in `folder`; returns how many files.

    Another process's temporary file looks the same: where one may be writing, spare with `older_than` (seconds)
    what was changed lately.
    """
    removed = 0
    for path in folder.glob(_TEMPORARY.format("*")):
        with contextlib.suppress(FileNotFoundError):
            if not older_than or path.stat().st_mtime < time.time() - older_than:
                path.unlink()
                removed += 1
    return removed


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_safetensors(serialized: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same tensors under a header that depends on nothing but tensors and metadata.

    The safetensors library writes `__metadata__` in a random order; here it stands first with sorted keys,
    the tensors follow in the order of their data, and spaces align the data to 8 bytes. Metadata that
    `serialized` has is dropped.
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


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, but no pipe or device, which might never answer.

    Raises:
        OSError: it is no regular file, or cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.open("rb")


def read_safetensors_header(
    path: Path, *, max_bytes: int = _MAX_HEADER_BYTES, error: type[InfluencerAIError] = ExportError
) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    """A file's metadata and tensors, in the header's order, without reading the tensors.

    The header is checked against the file: every tensor's bytes must exist, without gaps, overlaps or a rest.

    Raises:
        error: the file cannot be opened, is truncated or oversized, or is no safetensors file.
    """
    remedy = "Download or copy the file again, and compare its size with the original's."
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
            if length is None or not prefix.strip(b"\0"):
                raise error(f"{path} is no safetensors file: it has no header.", remedy=remedy)
            if length > max_bytes:
                raise error(
                    f"{path} is no safetensors file: its header would be {length:,} bytes long, the limit is "
                    f"{max_bytes:,}.",
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
        raise error(f"{path} is no safetensors file: its header is garbage.", remedy=remedy) from failure
    _check_extent(path, entries, size - 8 - length, error=error, remedy=remedy)
    return metadata, entries


def reserve_output(folder: Path, run_id: str, *, suffix: str | None = None) -> Path:
    """The output folder of a run: `folder`, or `<folder>-<suffix>` where that is taken.

    The suffix, by default the first 8 digits of `run_id`, should tell the run from others. A folder is taken when
    it carries another run's marker, or holds .safetensors files and no marker. The same run gets the same folder
    again.

    Raises:
        ExportError: both are taken, or neither can be made.
    """
    candidates = (folder, folder.with_name(f"{folder.name}-{suffix or run_id[:8]}"))
    for candidate in candidates:
        try:
            if _claim(candidate, run_id):
                return candidate
        except OSError as failure:
            raise ExportError(
                f"The output folder {candidate} cannot be made: {file_system.refusal(failure, folder.parent)}.",
                remedy="Choose another outputPath.",
            ) from failure
    raise ExportError(
        f"The output folders {candidates[0]} and {candidates[1]} hold the files of other runs.",
        remedy="Choose another outputPath.",
    )


def take_over_output(folder: Path, *, previous: str, run_id: str) -> Path | None:
    """Give the output folder of the run `previous` to the run that goes on from it; None where it has none."""
    found = find_output(folder, previous)
    if found is not None:
        write_atomic(found / RUN_MARKER, run_id.encode())
    return found


def find_output(folder: Path, run_id: str) -> Path | None:
    """The output folder that the run has: `folder`, or one beside it that an earlier run had; None where it has none.

    Raises:
        ExportError: the folder above cannot be listed.
    """
    try:
        beside = sorted(folder.parent.glob(f"{glob.escape(folder.name)}-*"))
        markers = [candidate / RUN_MARKER for candidate in (folder, *beside)]
        return next((path.parent for path in markers if path.is_file() and path.read_bytes() == run_id.encode()), None)
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:  # which no folder has
            return None
        raise ExportError(f"{folder.parent} cannot be read: {failure.strerror or failure}.") from failure


def release_output(folder: Path, run_id: str) -> None:
    """Give back the reservation of a run that has written no file."""
    marker = folder / RUN_MARKER
    if marker.exists() and marker.read_bytes() == run_id.encode() and not any(folder.glob("*.safetensors")):
        marker.unlink(missing_ok=True)


def _claim(folder: Path, run_id: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / RUN_MARKER
    if not marker.exists() and any(folder.glob("*.safetensors")):
        return False
    try:
        file_system.create_exclusively(marker, run_id.encode())
    except FileExistsError:
        return marker.read_bytes() == run_id.encode()
    return True


def _data_offset(serialized: bytes) -> int:
    return 8 + int(struct.unpack_from("<Q", serialized)[0])


def _entry(entry: Any) -> TensorEntry:
    """A header's entry, checked, since JSON has numbers and shapes that no tensor has."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPE_BITS or not isinstance(shape, list) or len(shape) > _MAX_SIDES:
        raise ValueError("a tensor of an unknown dtype or shape")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end)):
        raise ValueError("a side or an offset that is none")
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
            raise error(f"{path} is no safetensors file: its header misplaces the tensor '{name}'.", remedy=remedy)
        position = entry.end
    if position > data_bytes:
        raise error(f"{path} is truncated: {data_bytes:,} of {position:,} bytes of tensors are there.", remedy=remedy)
    if position < data_bytes:
        raise error(f"{path} is damaged: {data_bytes - position:,} bytes follow its last tensor.", remedy=remedy)
