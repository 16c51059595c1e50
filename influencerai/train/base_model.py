"""BaseModel: where a base model's weights lie, what family they are, and how to load one component of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from influencerai.domain.training_options import PredictionType
from influencerai.errors import ModelError
from influencerai.train import diffusers_folder, model_search, single_file
from influencerai.train.clip_tokenizer import load_tokenizer
from influencerai.train.model_components import (
    COMPONENTS,
    CONFIGS,
    MODULES,
    TOKENIZERS,
    read_config,
    read_json,
)
from influencerai.train.weight_file import file_sha256


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model that was found and recognised; no weights are loaded yet."""

    name: str
    path: Path
    layout: Literal["diffusers", "single_file"]
    family: str
    prediction_type: PredictionType
    zero_terminal_snr: bool
    configs: Path
    """A diffusers folder with the components' configurations: `path` itself, or ours for single files."""

    def load(self, component: str, *, dtype: torch.dtype = torch.float32) -> Any:
        """One component ("unet", "vae", "text_encoder", "tokenizer", ...), in eval mode, on the CPU.

        Raises:
            ModelError: the family has no such component, or its files cannot be read or lack a tensor.
        """
        self._check_component(component)
        if component not in MODULES:
            return load_tokenizer(self.configs / component)
        if self.layout == "diffusers":
            return diffusers_folder.load_module(self.path, component, dtype=dtype)
        return single_file.load_module(
            self.path, component, family=self.family, configs=self.configs.parent, dtype=dtype
        )

    def config(self, component: str) -> dict[str, Any]:
        """The component's configuration ("scheduler" too), without loading weights.

        Raises:
            ModelError: it is missing or damaged.
        """
        return read_config(self.configs, component)

    @property
    def pipeline_config(self) -> dict[str, Any]:
        """What model_index.json says of the pipeline as a whole."""
        return read_json(self.configs / "model_index.json")

    def fingerprint(self, component: str | None = None) -> str:
        """SHA-256 over all that decides what one component, or the model, computes.

        In a diffusers folder: the weight files' hashes and the configuration, for a text encoder its
        tokenizer's files too. A single-file model has one fingerprint, the SHA-256 of the file.

        Raises:
            ModelError: the family has no such component, or its files are missing.
        """
        if component is not None:
            self._check_component(component)
        if self.layout == "single_file":
            return file_sha256(self.path)
        if component is None:
            parts = [(name, self.fingerprint(name)) for name in COMPONENTS[self.family] if name in MODULES]
            return _digest([parts, self.config("scheduler")])
        if component not in MODULES:
            files = sorted(path for path in (self.path / component).iterdir() if path.is_file())
            return _digest([(file.name, file_sha256(file)) for file in files])
        _, weights = diffusers_folder.weight_files(self.path, component)
        tokenizer = self.fingerprint(TOKENIZERS[component]) if component in TOKENIZERS else None
        return _digest([[file_sha256(file) for file in weights], self.config(component), tokenizer])

    def _check_component(self, component: str) -> None:
        if component not in COMPONENTS[self.family]:
            raise ModelError(
                f"A model of the family {self.family} has no {component}.",
                remedy=f"It has {', '.join(COMPONENTS[self.family])}.",
            )


def find_base_model(
    name: str,
    *,
    models_dirs: Sequence[Path],
    allow_download: bool = False,
    as_path: bool = True,
    configs: Path = CONFIGS,
) -> BaseModel:
    """Resolve an alias (sd15, sdxl), hub id, diffusers folder or .safetensors file.

    Looked for in the models folders (a hub id as `<folder>/org/name`, folder or `.safetensors`), then as a
    path, then in the Hugging Face cache, then, with `allow_download`, on the hub. Without `as_path`, for a name
    that a stranger chose, it is no path, and none leads out of the models folders. `configs` holds, for single
    files, a diffusers folder of component configurations per family.

    Raises:
        ModelError: not found, a pickle, truncated, incomplete, or of no supported family, with the remedy.
    """
    if path := model_search.find_local(name, models_dirs, as_path=as_path):
        return _recognised(name, path, configs=configs)
    hub_id = model_search.hub_id_of(name)
    if hub_id and (path := model_search.find_cached(hub_id)):
        try:
            return _recognised(name, path, configs=configs)
        except ModelError:
            if not allow_download:
                raise
    if hub_id and allow_download:
        return _recognised(name, model_search.download(hub_id, models_dirs=models_dirs), configs=configs)
    looked = [str(path) for path in model_search.candidates(name, models_dirs, as_path=as_path)]
    if hub_id:
        looked.append(f"the Hugging Face cache ({hub_id})")
    searched = "Looked for:" if looked else "No path is taken here."
    raise ModelError(
        "\n  ".join([f"There is no base model '{name}'. {searched}", *looked]),
        remedy=model_search.by_hand(hub_id, models_dirs),
    )


def _recognised(name: str, path: Path, *, configs: Path) -> BaseModel:
    if path.is_dir():
        family, prediction_type, zero_terminal_snr = diffusers_folder.recognise(path)
    else:
        family, prediction_type, zero_terminal_snr = single_file.recognise(path, configs=configs)
    return BaseModel(
        name=name,
        path=path,
        layout="diffusers" if path.is_dir() else "single_file",
        family=family,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        configs=path if path.is_dir() else configs / family,
    )


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
