"""Weight files: reads .safetensors headers, and names the format of other files."""

from __future__ import annotations

import difflib
import functools
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from influencerai.errors import ModelError
from influencerai.files.atomic_file import open_regular, sha256_file
from influencerai.files.safetensors_file import TensorEntry, read_safetensors_header

PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})

_SAFETENSORS = ".safetensors"
_ADAPTER_TENSOR = re.compile(
    r"^(lora_(unet|te\d?|prior)|lycoris)_"
    r"|(^|\.)(lora_(A|B|E|up|down|mid|embedding_[AB]|magnitude_vector)|\w*_lora|lora|lora_linear_layer"
    r"|hada_[wt]\w*|lokr_[wt]\w*|oft_\w+|dora_scale|base_layer)(\.|$)"
)
"""Names that sd-scripts, LyCORIS, PEFT and diffusers give to an adapter's tensors, and PEFT to the layer below one."""
_BASE_PREFIXES = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.")
_MAX_HEADER_BYTES = 100_000_000
_FOREIGN_FORMATS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, the model itself was not downloaded",
        "Run `git lfs pull`.",
    ),
    (b"<", "a web page", "The site probably wanted a login: download the model in a browser."),
    (b"GGUF", "a GGUF file", "Use the .safetensors file of the model."),
)


@dataclass(frozen=True)
class WeightHeader:
    """The header of a .safetensors file: tensors by name, and metadata."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by tensor name."""
        return {name: entry.shape for name, entry in self.tensors.items()}

    def has(self, prefix: str) -> bool:
        """Whether a tensor's name begins with `prefix`."""
        return any(name.startswith(prefix) for name in self.tensors)

    def read_bytes(self, name: str) -> bytes:
        """The bytes of one small tensor.

        Raises:
            ModelError: the file cannot be read any more.
        """
        entry = self.tensors[name]
        try:
            with open_regular(self.path) as file:
                file.seek(8 + struct.unpack("<Q", file.read(8))[0] + entry.begin)
                return file.read(entry.end - entry.begin)
        except (OSError, struct.error) as error:
            raise ModelError(f"{self.path} cannot be read: {error}.") from error

    @property
    def is_adapter(self) -> bool:
        """Whether this is a LoRA (LoHa, LoKr, OFT) and no model, which may hold one besides its own weights."""
        own = [name for name in self.tensors if not is_adapter_tensor(name)]
        is_base = any(name.startswith(_BASE_PREFIXES) and name.endswith((".weight", ".bias")) for name in own)
        return len(own) < len(self.tensors) and not is_base


def read_header(path: Path) -> WeightHeader:
    """The header of a .safetensors file; no tensor is read.

    Raises:
        ModelError: a pickle (never opened as one), truncated, or not safetensors; the message names the format.
    """
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise pickle_error(path)
    _refuse_foreign_format(path)
    try:
        metadata, tensors = read_safetensors_header(path, error=ModelError)
    except ModelError as error:
        if path.suffix.lower() != _SAFETENSORS:
            error.remedy = "Give a .safetensors file; no other format is opened."
        raise
    return WeightHeader(path, tensors, metadata)


def read_lora_header(path: Path) -> WeightHeader:
    """The header of a file that somebody named as a LoRA (LoHa, LoKr, OFT, DoRA).

    Raises:
        ModelError: it is not there, cannot be read (see `read_header`), or is something else, which the message names.
    """
    if not os.path.lexists(path):
        raise _missing_lora(path)
    header = read_header(path)
    if header.tensors and not header.is_adapter:
        what, remedy = "no LoRA", "Give a LoRA's .safetensors file."
        if any(map(is_adapter_tensor, header.tensors)):
            what = "a base model, with an adapter in it"
        elif any(header.has(prefix) for prefix in _BASE_PREFIXES):
            what = "a base model, not a LoRA"
            remedy = "Name the LoRA's file here, and the base model with --model."
        raise ModelError(f"{path} is {what}.", remedy=remedy)
    return header


def is_adapter_tensor(name: str) -> bool:
    """Whether a tensor's name is one of an adapter (LoRA, LoHa, LoKr, OFT, DoRA)."""
    return _ADAPTER_TENSOR.search(name) is not None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; remembered while its size and modification time stay."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)


def pickle_error(path: Path) -> ModelError:
    """The refusal of a pickled checkpoint."""
    return ModelError(
        f"{path} is a pickle: opening it can run any code, so it is never opened here.",
        remedy="Use the model's .safetensors file. If there is none, convert it on a machine that you can "
        "spare, for example with AUTOMATIC1111's checkpoint merger (no interpolation, safetensors).",
    )


def adapter_error(path: Path) -> ModelError:
    """The refusal of a LoRA in the place of a base model."""
    return ModelError(
        f"{path} is a LoRA, not a base model.",
        remedy="Give the model that it was trained on, such as sd15 or sdxl.",
    )


def _missing_lora(path: Path) -> ModelError:
    """The refusal of a name that is not there, with the nearest that is."""
    try:
        beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
    except OSError:
        beside = []
    names = [entry.name for entry in beside if entry.is_dir() or entry.suffix == _SAFETENSORS]
    near = difflib.get_close_matches(path.name, names, n=1)
    return ModelError(
        f"{path} does not exist.",
        remedy=f"Did you mean {path.parent / near[0]}?" if near else "Name a LoRA file, or a run's output folder.",
    )


def _refuse_foreign_format(path: Path) -> None:
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a file.", remedy="Name a .safetensors file in it.")
    try:
        with open_regular(path) as file:
            start = file.read(32)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not start:
        raise ModelError(f"{path} is empty: it has 0 bytes.", remedy="Download or copy the file again.")
    # A safetensors file begins with its header's length, which the other formats' marks make absurd.
    if int.from_bytes(start[:8], "little") <= _MAX_HEADER_BYTES:
        return
    if start.startswith((b"PK\x03\x04", b"\x80")):
        raise pickle_error(path)
    for mark, what, remedy in _FOREIGN_FORMATS:
        if start.startswith(mark):
            raise ModelError(f"{path} is not a safetensors file but {what}.", remedy=remedy)


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)
