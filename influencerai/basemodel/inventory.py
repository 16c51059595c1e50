"""Inventory: the base models in the models folders, and which of the well-known ones are here; read by headers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influencerai.basemodel import diffusers_folder, hub
from influencerai.basemodel.base_model import BaseModel, find_base_model
from influencerai.basemodel.components import CLASSES, COMPONENTS
from influencerai.basemodel.search import ALIASES, WEIGHTS, find_local
from influencerai.basemodel.single_file import PREFIXES
from influencerai.basemodel.weight_file import WeightHeader, read_header
from influencerai.errors import ModelError

_PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8", "F8_E5M2": "fp8", "F64": "fp64"}
_LICENCE = re.compile(r"^license:\s*(\S.*?)\s*$", re.MULTILINE)
_MAX_CARD_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """A folder or file in a models folder."""

    name: str
    """The model's name for `--model`."""
    path: Path
    base: BaseModel | None
    """None where it cannot be used."""
    fault: str | None
    """Why it cannot be used, in one line."""
    size_bytes: int = 0
    """Size of the weight files that are read."""
    precision: str | None = None
    """Of most of the UNet's weights as they are stored."""
    licence: str | None = None
    """The licence that the model states itself."""


@dataclass(frozen=True, kw_only=True)
class ListedAlias:
    """A well-known model, and where it is or belongs."""

    alias: str
    hub_id: str
    path: Path | None
    """None where it is not here."""
    places: tuple[Path, ...]
    """Where it can be put: a single file, or a diffusers folder."""

    @property
    def remedy(self) -> str:
        """How to get the model."""
        file, folder = self.places
        command = f"influencerai models get {self.alias}"
        return f"Run: {command}, or copy it to {file} (single file) or {folder} (diffusers folder)."

    def to_wire(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "alias": self.alias,
            "hubId": self.hub_id,
            "path": self.path and str(self.path),
            "places": [str(place) for place in self.places],
        }


def list_models(models_dirs: Sequence[Path]) -> list[ListedModel]:
    """The models in the folders, up to `<org>/<name>` deep, in order; nothing is raised for one that is broken."""
    return [_listed(path, folder) for folder in models_dirs for path in _candidates(folder)]


def list_aliases(models_dirs: Sequence[Path]) -> list[ListedAlias]:
    """The well-known models, in the models folders or the Hugging Face cache, or absent."""
    found = []
    for name, alias in ALIASES.items():
        try:
            path = find_local(name, models_dirs)
        except ModelError:  # a pickle of that name
            path = None
        places = (models_dirs[0] / f"{name}{WEIGHTS}", models_dirs[0] / alias.hub_id)
        path = path or hub.find_cached(alias.hub_id)
        found.append(ListedAlias(alias=name, hub_id=alias.hub_id, path=path, places=places))
    return found


def _candidates(folder: Path) -> Iterator[Path]:
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            in_model = (path.parent / "model_index.json").exists()
            if (path / "model_index.json").is_file() or (path.suffix == WEIGHTS and not in_model):
                yield path


def _listed(path: Path, folder: Path) -> ListedModel:
    name = path.relative_to(folder).as_posix().removesuffix(WEIGHTS)
    try:
        base = find_base_model(str(path.absolute()), models_dirs=())
        headers = _headers(base)
    except ModelError as error:
        return ListedModel(name=name, path=path, base=None, fault=error.message.partition("\n")[0])
    return ListedModel(
        name=name,
        path=path,
        base=base,
        fault=None,
        size_bytes=sum(header.path.stat().st_size for header in {header.path: header for header in headers}.values()),
        precision=_precision(headers, base),
        licence=_licence(base, headers),
    )


def _headers(base: BaseModel) -> list[WeightHeader]:
    if base.layout == "single_file":
        return [read_header(base.path)]
    components = [component for component in COMPONENTS[base.family] if component in CLASSES]
    return [read_header(file) for name in components for file in diffusers_folder.weight_files(base.path, name)[1]]


def _precision(headers: Sequence[WeightHeader], base: BaseModel) -> str | None:
    prefix = PREFIXES[base.family]["unet"] if base.layout == "single_file" else ""
    unet = [header for header in headers if base.layout == "single_file" or header.path.parent.name == "unet"]
    sizes: Counter[str] = Counter()
    for header in unet:
        for name, entry in header.tensors.items():
            if name.startswith(prefix):
                sizes[entry.dtype] += entry.end - entry.begin
    return _PRECISIONS.get(sizes.most_common(1)[0][0]) if sizes else None


def _licence(base: BaseModel, headers: Sequence[WeightHeader]) -> str | None:
    for header in headers:
        if stated := header.metadata.get("modelspec.license"):
            return stated
    try:
        with (base.path / "README.md").open(encoding="utf-8", errors="replace") as file:
            match = _LICENCE.search(file.read(_MAX_CARD_BYTES))
    except OSError:
        return None
    return match[1] if match else None
