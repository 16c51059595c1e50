"""First weights: a LoRA file that a run starts with, or goes on from, instead of a new adapter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from influencerai.domain import TrainingSpec
from influencerai.errors import CheckpointError
from influencerai.files import atomic_file
from influencerai.lora.adapter import Adapter
from influencerai.lora.reading import bare_path, read_lora
from influencerai.models.family import Family

FIRST_WEIGHTS_FILE = "first-weights.safetensors"
"""The run's own copy, so that it can go on when the file is moved or written anew."""


def copy_first_weights(file: Path | None, folder: Path) -> None:
    """Keep the file in the run's folder, where there is one."""
    if file is not None:
        atomic_file.write_atomic(folder / FIRST_WEIGHTS_FILE, file.read_bytes())


def read_first_weights(spec: TrainingSpec, run_dir: Path, *, adapter: Adapter, family: Family) -> dict[str, Tensor]:
    """The adapter's tensors as the run's first weights give them, whatever alpha they were trained with.

    Raises:
        CheckpointError: the file is gone, was changed, or is not of this adapter's modules.
    """
    path = run_dir / FIRST_WEIGHTS_FILE
    assert spec.origin is not None
    if spec.origin.keeps_optimizer or not path.is_file() or atomic_file.sha256_file(path) != spec.origin.sha256:
        raise CheckpointError(
            f"The weights that the run in {run_dir} goes on from are gone.", remedy="Start a new run."
        )
    new = adapter.weights()
    found = read_lora(path, keys=new.keys(), family=family)
    paths = {(component, bare_path(module)): f"{component}.{module}" for component, module in new}
    _check_modules(spec.origin.file, found={".".join(key) for key in found}, own={".".join(key) for key in paths})
    tensors: dict[str, Tensor] = {}
    for (component, module), lora in new.items():
        loaded = found[component, bare_path(module)]
        scale = (loaded.alpha / loaded.rank) / (lora.alpha / lora.rank)
        tensors[f"{component}.{module}.lora_down"] = _fitted(loaded.down, lora.down)
        tensors[f"{component}.{module}.lora_up"] = _fitted(loaded.up, lora.up) * scale
    return tensors


def _fitted(tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.numel() != like.numel():
        raise CheckpointError(
            f"A weight of the LoRA is {tuple(tensor.shape)}, and {tuple(like.shape)} in this adapter.",
            remedy="Use the networkDim, targetModules and base model that it was trained with.",
        )
    return tensor.to(torch.float32).reshape(like.shape)


def _check_modules(file: str, *, found: set[str], own: set[str]) -> None:
    if found == own:
        return
    missing, extra = sorted(own - found), sorted(found - own)
    named = [f"it lacks {len(missing)}, such as {missing[0]}"] if missing else []
    named += [f"it has {len(extra)} more, such as {extra[0]}"] if extra else []
    raise CheckpointError(
        f"{file} adapts other modules than the run: {'; '.join(named)}.",
        remedy="Use the targetModules and trainTextEncoder that it was trained with.",
    )
