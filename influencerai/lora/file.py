"""LoRA files: the kohya layout that every program reads, and the PEFT layout of diffusers.

Weights are stored in float16, as users of these files expect: float32 would double their size. What that
rounding can cost bounds the difference that `verify_lora` accepts.

The PEFT layout has alpha / rank multiplied into its weights and states lora_alpha = r: a reader that ignores the
metadata, as diffusers before 0.34 and ComfyUI do, scales by 1 as well.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from influencerai.domain import TrainingSpec
from influencerai.domain.lora_layout import Layout
from influencerai.errors import ExportError
from influencerai.files import atomic_file, safetensors_file
from influencerai.lora.adapter import LoraWeights
from influencerai.lora.metadata import model_metadata, training_metadata
from influencerai.lora.reading import PEFT_METADATA, bare_path, read_layout, read_lora
from influencerai.models.family import Family
from influencerai.training_plan import TrainingPlan

__all__ = ["FILE_DTYPE", "Layout", "Weights", "verify_lora", "write_lora"]

Weights = Mapping[tuple[str, str], LoraWeights]
"""Trained weights by (component, path)."""

FILE_DTYPE = torch.float16


def write_lora(
    path: Path,
    weights: Weights,
    *,
    spec: TrainingSpec,
    plan: TrainingPlan,
    family: Family,
    step: int,
    epoch: int,
    layout: Layout = "kohya",
) -> str:
    """Write the file, whole or not at all, and return its SHA-256. The same arguments give the same bytes.

    Raises:
        ExportError: a weight is not finite or too large for float16, or two modules have one key.
        InfluencerAIError: the file system refuses.
    """
    if layout == "diffusers":
        weights = {key: _folded(lora) for key, lora in weights.items()}
    tensors = _kohya_tensors(weights, family) if layout == "kohya" else _peft_tensors(weights)
    body = safetensors.torch.save(tensors)
    training = training_metadata(spec, plan=plan, family=family, step=step, epoch=epoch)
    model_hash = safetensors_file.model_hash(body)
    metadata = training | model_metadata(spec, plan=plan, family=family, layout=layout, model_hash=model_hash)
    # sd-scripts takes the legacy hash of a file that has no other metadata than its own.
    metadata["sshs_legacy_hash"] = safetensors_file.legacy_hash(safetensors_file.canonical_safetensors(body, training))
    metadata["sshs_model_hash"] = model_hash
    if layout == "diffusers":
        metadata["format"] = "pt"
        metadata[PEFT_METADATA] = json.dumps(_peft_configs(weights), indent=2, sort_keys=True)
    data = safetensors_file.canonical_safetensors(body, metadata)
    atomic_file.write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def verify_lora(path: Path, weights: Weights, *, family: Family) -> None:
    """Read the file back and compare the change that it makes to every weight with the trained one's.

    For families that diffusers supports, its loader maps keys to modules; for others the family does.
    The accepted difference is what rounding to float16 can cost.

    Raises:
        ExportError: the file cannot be read, lacks a module, has one too many, or changes a weight otherwise.
    """
    found = read_lora(path, keys=weights.keys(), family=family)
    is_folded = read_layout(path) == "diffusers"
    expected = {
        (component, bare_path(module)): _folded(lora) if is_folded else lora
        for (component, module), lora in weights.items()
    }
    for component, module in sorted(expected.keys() ^ found.keys()):
        fault = "lacks" if (component, module) in expected else "also changes"
        raise _mismatch(path, f"it {fault} the module '{component}.{module}'")
    for (component, module), lora in expected.items():
        _compare(path, f"{component}.{module}", trained=lora, stored=found[component, module])


def _kohya_tensors(weights: Weights, family: Family) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for (component, path), lora in weights.items():
        key = family.kohya_key(component, path)
        if f"{key}.alpha" in tensors:
            raise ExportError(f"Two trained modules would have the key '{key}' in a LoRA file.")
        tensors[f"{key}.lora_down.weight"] = _stored(lora.down, component, path)
        tensors[f"{key}.lora_up.weight"] = _stored(lora.up, component, path)
        tensors[f"{key}.alpha"] = torch.tensor(lora.alpha, dtype=torch.float32)
    return tensors


def _peft_tensors(weights: Weights) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for (component, path), lora in weights.items():
        # CLIP's text encoders go by their names before transformers 5, which diffusers translates.
        prefix = "text_model." if bare_path(path).startswith("encoder.layers.") else ""
        name = f"{component}.{prefix}{bare_path(path)}"
        tensors[f"{name}.lora_A.weight"] = _stored(lora.down, component, path)
        tensors[f"{name}.lora_B.weight"] = _stored(lora.up, component, path)
    return tensors


def _peft_configs(weights: Weights) -> dict[str, Any]:
    """PEFT's configuration of every component, under `<component>.`; PEFT matches targets by their endings."""
    configs: dict[str, Any] = {}
    for (component, path), lora in sorted(weights.items(), key=lambda item: item[0]):
        assert configs.get(f"{component}.r", lora.rank) == lora.rank, "one rank per component"
        configs[f"{component}.r"] = lora.rank
        configs[f"{component}.lora_alpha"] = lora.rank
        configs.setdefault(f"{component}.target_modules", []).append(bare_path(path))
    return configs


def _folded(lora: LoraWeights) -> LoraWeights:
    """The same change with alpha = rank. A power of two, which rounds nothing, goes to the down weight, so that
    neither factor of a small alpha leaves the range in which float16 is precise.
    """
    scale = lora.alpha / lora.rank
    down_scale = 2.0 ** round(math.log2(scale) / 2)
    return LoraWeights(down=lora.down * down_scale, up=lora.up * (scale / down_scale), alpha=lora.rank)


def _stored(tensor: Tensor, component: str, path: str) -> Tensor:
    stored = tensor.detach().cpu().to(FILE_DTYPE).contiguous()
    if not stored.isfinite().all():
        fault = "exceed the range of float16" if tensor.isfinite().all() else "are not finite"
        raise ExportError(f"The trained weights of '{component}.{path}' {fault}.", remedy="Lower the learning rate.")
    return stored


def _compare(path: Path, module: str, *, trained: LoraWeights, stored: LoraWeights) -> None:
    """Raise unless stored and trained change the module alike, to the rounding of each factor."""
    stored_alpha, trained_alpha = torch.tensor([stored.alpha, trained.alpha], dtype=torch.float32)
    if stored_alpha != trained_alpha:
        raise _mismatch(path, f"it scales the module '{module}' by alpha {stored.alpha:g}, not {trained.alpha:g}")
    if stored.down.shape != trained.down.shape or stored.up.shape != trained.up.shape:
        raise _mismatch(path, f"it changes the module '{module}' by weights of another shape")
    down, up = _matrix(trained.down), _matrix(trained.up)
    difference = _product_norm(
        torch.cat([_matrix(stored.up), -up], dim=1), torch.cat([_matrix(stored.down), down], dim=0)
    )
    down_norm, up_norm = float(down.norm()), float(up.norm())
    down_error, up_error = _rounding(down), _rounding(up)
    if not difference <= up_error * down_norm + up_norm * down_error + up_error * down_error:
        raise _mismatch(
            path, f"its change of the module '{module}' is off by {difference:.2e} of {_product_norm(up, down):.2e}"
        )


def _matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1).double()


def _product_norm(left: Tensor, right: Tensor) -> float:
    """Frobenius norm of left @ right, without computing that large matrix."""
    left_factor = torch.linalg.qr(left, mode="r").R
    right_factor = torch.linalg.qr(right.T, mode="r").R
    return float((left_factor @ right_factor.T).norm())


def _rounding(matrix: Tensor) -> float:
    """Upper bound of the Frobenius norm of what rounding to the file's precision changes."""
    limits = torch.finfo(FILE_DTYPE)
    relative = limits.eps / 2
    return relative * float(matrix.norm()) + relative * limits.smallest_normal * math.sqrt(matrix.numel())


def _mismatch(path: Path, fault: str) -> ExportError:
    return ExportError(
        f"{path} does not hold what was trained: {fault}.",
        remedy="The run's saved state is unharmed: resume the run to write the file again.",
    )
