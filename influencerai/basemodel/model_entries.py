"""Model entries: the inventory as the API shows it, and what is wrong with the name of a base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from influencerai.basemodel.base_model import find_base_model
from influencerai.basemodel.hub import find_cached
from influencerai.basemodel.inventory import ListedModel, list_aliases, list_models
from influencerai.basemodel.search import ALIASES, by_hand, find_local, hub_id_of
from influencerai.domain.base_model_entry import BaseModelEntry
from influencerai.errors import ModelError

FOLDER = "models"
"""Name of the models folder in messages and entries, wherever it lies."""


def model_entries(models_dirs: Sequence[Path]) -> tuple[BaseModelEntry, ...]:
    """The aliases first, then each model of the folders by its name."""
    found: dict[str, ListedModel] = {}
    for model in list_models(models_dirs):
        found.setdefault(model.name, model)
    aliases = [_alias_entry(alias.alias, alias.hub_id, models_dirs) for alias in list_aliases(models_dirs)]
    return (*aliases, *(_entry(found[name], models_dirs) for name in sorted(found)))


def problem_with(name: str, *, models_dirs: Sequence[Path], allow_download: bool) -> str | None:
    """Why a job fails on the model of this name, or waits for a download; None where it is in a models folder.

    The name is one that a stranger chose: a path is never opened, and no header is read.
    """
    if name not in ALIASES and hub_id_of(name) is None and (Path(name).name != name or name in (".", "..")):
        return (
            f"modelName '{name}' is a path, which no server opens: jobs fail on it. Name an alias (sd15, sdxl), a hub "
            f"id, or a file or folder in the server's {FOLDER} folder; GET /models lists them."
        )
    try:
        if find_local(name, models_dirs, as_path=False) is not None:
            return None
    except ModelError as error:
        return f"Jobs fail on the base model '{name}': {in_models_folder(str(error), models_dirs)}"
    hub_id = hub_id_of(name)
    if hub_id and find_cached(hub_id):
        return None
    if hub_id and allow_download:
        return f"The base model '{name}' is not on this server: the first job downloads {hub_id}."
    place = f"Copy it to {FOLDER}/{hub_id or name}" if hub_id else f"Copy it into {FOLDER}"
    return f"The base model '{name}' is not on this server: jobs fail on it. {place}; see GET /models."


def in_models_folder(text: str, models_dirs: Sequence[Path]) -> str:
    """A message in which the models folders have their short name."""
    for folder in sorted(models_dirs, key=lambda path: len(str(path)), reverse=True):
        text = text.replace(f"{folder}/", f"{FOLDER}/")
    return text


def _alias_entry(name: str, hub_id: str, models_dirs: Sequence[Path]) -> BaseModelEntry:
    try:
        model = find_base_model(name, models_dirs=models_dirs, as_path=False)
    except ModelError as error:
        return BaseModelEntry(
            name=name,
            available=False,
            alias=True,
            hub_id=hub_id,
            problem=_first_line(error.message, models_dirs),
            remedy=in_models_folder(error.remedy or by_hand(hub_id, models_dirs), models_dirs),
        )
    return BaseModelEntry(
        name=name,
        available=True,
        alias=True,
        hub_id=hub_id,
        family=model.family,
        layout=model.layout,
        path=_place(model.path, models_dirs),
    )


def _entry(model: ListedModel, models_dirs: Sequence[Path]) -> BaseModelEntry:
    return BaseModelEntry(
        name=model.name,
        available=model.base is not None,
        hub_id=hub_id_of(model.name),
        family=None if model.base is None else model.base.family,
        layout=None if model.base is None else model.base.layout,
        size=model.size_bytes or None,
        path=_place(model.path, models_dirs),
        problem=None if model.fault is None else _first_line(model.fault, models_dirs),
        remedy=None if model.fault is None else "Download or copy the model again, or use another one.",
    )


def _place(path: Path, models_dirs: Sequence[Path]) -> str | None:
    place = in_models_folder(str(path), models_dirs)
    return place if place.startswith(f"{FOLDER}/") else None


def _first_line(text: str, models_dirs: Sequence[Path]) -> str:
    return in_models_folder(text, models_dirs).split("\n")[0].removesuffix(" Looked for:")
