"""TensorCache: named tensors on disk under the hash of everything that decides them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from influencerai.files import atomic_file


class TensorCache:
    """A folder of safetensors files. An entry that is torn or altered counts as absent.

    Safe for several processes: entries appear by rename, and two writers of one key write the same bytes.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    @staticmethod
    def key(**parts: object) -> str:
        """SHA-256 of the JSON of `parts`."""
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under `key`, on the CPU, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        body, digest = data[:-32], data[-32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        try:
            tensors = safetensors.torch.load(body)
        except SafetensorError:
            return None
        with suppress(OSError):  # another process prunes it now, or the cache is read-only
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors` (contiguous) under `key`."""
        body = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        atomic_file.write_atomic(self._path(key), body + hashlib.sha256(body).digest(), sync=False)

    def prune(self) -> int:
        """Delete the least recently used entries until the cap holds. Returns the bytes freed."""
        if self._max_bytes is None:
            return 0
        entries = []
        for path in self._folder.glob("*/*.tensors"):
            with suppress(FileNotFoundError):
                entries.append((path, path.stat()))
        excess = sum(stat.st_size for _, stat in entries) - self._max_bytes
        freed = 0
        for path, stat in sorted(entries, key=lambda entry: entry[1].st_mtime):
            if freed >= excess:
                break
            path.unlink(missing_ok=True)
            freed += stat.st_size
        return freed

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.tensors"
