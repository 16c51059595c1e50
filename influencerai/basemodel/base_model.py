"""BaseModel: the location, family and fingerprint of a base model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from influencerai.basemodel import diffusers_folder, hub, search, single_file
from influencerai.basemodel.components import CLASSES, COMPONENTS, CONFIGS, TOKENIZERS, read_config, read_json
from influencerai.basemodel.weight_file import file_sha256
from influencerai.domain import ModelSpec, TrainingOptions
from influencerai.domain.training_options import PredictionType
from influencerai.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model that was found and recognised; no weights are loaded."""

    name: str
    path: Path
    layout: Literal["diffusers", "single_file"]
    family: str
    prediction_type: PredictionType
    zero_terminal_snr: bool
    configs: Path
    """A diffusers folder with the components' configurations: `path` itself, or ours for single files."""
    warnings: tuple[str, ...] = ()
    """Parts of the files that no component uses."""

    def config(self, component: str) -> dict[str, Any]:
        """The component's configuration ("scheduler" too), without loading weights.

        Raises:
            ModelError: it is missing or damaged.
        """
        return read_config(self.configs, component)

    @property
    def pipeline_config(self) -> dict[str, Any]:
        """The pipeline's configuration, from model_index.json."""
        return read_json(self.configs / "model_index.json")

    def fingerprint(self, component: str | None = None) -> str:
        """SHA-256 over everything that determines the output of one component, or of the model.

        In a diffusers folder: the weight files' hashes and the configuration, for a text encoder its
        tokenizer's files too. A single-file model has one fingerprint, the SHA-256 of the file.

        Raises:
            ModelError: the family has no such component, or its files are missing.
        """
        if component is not None:
            self.check_component(component)
        if self.layout == "single_file":
            return file_sha256(self.path)
        if component is None:
            parts = [(name, self.fingerprint(name)) for name in COMPONENTS[self.family] if name in CLASSES]
            return _digest([parts, self.config("scheduler")])
        if component not in CLASSES:
            files = sorted(path for path in (self.path / component).iterdir() if path.is_file())
            return _digest([(file.name, file_sha256(file)) for file in files])
        _, weights = diffusers_folder.weight_files(self.path, component)
        tokenizer = self.fingerprint(TOKENIZERS[component]) if component in TOKENIZERS else None
        return _digest([[file_sha256(file) for file in weights], self.config(component), tokenizer])

    def check_component(self, component: str) -> None:
        """Refuse the name of a component that the family does not have.

        Raises:
            ModelError: names those that it has.
        """
        if component not in COMPONENTS[self.family]:
            raise ModelError(
                f"A model of the family {self.family} has no {component}.",
                remedy=f"It has {', '.join(COMPONENTS[self.family])}.",
            )

    def spec(self, options: TrainingOptions, *, side_multiple: int) -> ModelSpec:
        """The model as a run freezes it; `options` override its noise schedule.

        The weights are hashed, once per process.
        """
        asked = options.zero_terminal_snr
        return ModelSpec(
            name=self.name,
            family=self.family,
            fingerprint=self.fingerprint(),
            prediction_type=options.prediction_type or self.prediction_type,
            zero_terminal_snr=self.zero_terminal_snr if asked is None else asked,
            side_multiple=side_multiple,
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
        DependencyMissingError: a download needs huggingface_hub, which is not installed.
    """
    if path := search.find_local(name, models_dirs, as_path=as_path):
        return _recognised(name, path, configs=configs)
    hub_id = search.hub_id_of(name)
    if hub_id and (path := hub.find_cached(hub_id)):
        try:
            return _recognised(name, path, configs=configs)
        except ModelError:
            if not allow_download:
                raise
    if hub_id and allow_download:
        return _recognised(name, hub.download(hub_id, models_dirs=models_dirs), configs=configs)
    looked = [str(path) for path in search.candidates(name, models_dirs, as_path=as_path)]
    if hub_id:
        looked.append(f"the Hugging Face cache ({hub_id})")
    searched = "Looked for:" if looked else "No path is taken here."
    raise ModelError(
        "\n  ".join([f"There is no base model '{name}'. {searched}", *looked]),
        remedy=search.by_hand(hub_id, models_dirs),
    )


def _recognised(name: str, path: Path, *, configs: Path) -> BaseModel:
    found = diffusers_folder.recognise(path) if path.is_dir() else single_file.recognise(path, configs=configs)
    return BaseModel(
        name=name,
        path=path,
        layout="diffusers" if path.is_dir() else "single_file",
        family=found.family,
        prediction_type=found.prediction_type,
        zero_terminal_snr=found.zero_terminal_snr,
        configs=path if path.is_dir() else configs / found.family,
        warnings=found.warnings,
    )


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
