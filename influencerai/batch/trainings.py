"""Trainings of a batch: each with a name, a dataset and a config of its own, or a problem to fix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from influencerai.domain import LoraConfig
from influencerai.domain.output_path import output_path, slug
from influencerai.domain.presets import PRESETS, PresetName
from influencerai.errors import ValidationError
from influencerai.training_plan.config_sources import ConfigLayer, preset_layer, resolve_config

DEFAULT_OUTPUT = "data/loras/{name}"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem, and where it is: an entry, a line or a training."""

    where: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A training as the file has it."""

    dataset: str
    dataset_name: str
    config_name: str
    fields: Mapping[str, Any]
    """Of the config, with `name` and `preset`."""
    where: str
    config_at: str
    """Where `fields` stand, which several trainings may share."""
    name: str | None = None
    trigger_word: str | None = None

    @property
    def title(self) -> str:
        return self.name or "-".join(part for part in (self.dataset_name, self.config_name) if part)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a batch. Its name and its output path are its own."""

    name: str
    dataset: str
    """The folder, relative to the root or absolute."""
    dataset_name: str
    config: LoraConfig
    where: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The content of a file."""

    trainings: tuple[Training, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def resolve_drafts(drafts: Iterable[Draft], *, defaults: Mapping[str, Any], defaults_at: str = "defaults") -> Batch:
    """The trainings that can be made of `drafts`; a problem of a config that several share is reported once.

    A config's own fields win over its dataset's trigger word, that over its preset, that over `defaults`.
    """
    problems: list[Problem] = []
    try:
        base = _layers(defaults)
        if "name" in defaults:
            raise ValidationError(field_errors={"name": ["This belongs to one config, not to all"]})
    except ValidationError as error:
        return Batch(problems=tuple(Problem(where=defaults_at, text=text) for text in texts_of(error)))
    trainings: list[Training] = []
    warnings: list[str] = []
    for draft in drafts:
        try:
            training, said = _resolve(draft, base)
        except ValidationError as error:
            problems += [Problem(where=draft.config_at, text=text) for text in texts_of(error)]
            continue
        trainings.append(training)
        warnings += [f"{draft.config_at}: {text}" for text in said]
    problems += _collisions(trainings)
    return Batch(
        trainings=tuple(trainings),
        problems=tuple(dict.fromkeys(problems)),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def texts_of(error: ValidationError) -> list[str]:
    """The messages of an error, one per field; the whole message where it names no field."""
    found = [f"{name}: {text}" for name, texts in error.field_errors.items() for text in texts]
    texts = found or [f"{error.message} {error.remedy or ''}".strip()]
    return [text if text.endswith((".", "?")) else f"{text}." for text in texts]


def _resolve(draft: Draft, base: list[ConfigLayer]) -> tuple[Training, tuple[str, ...]]:
    own, *preset = _layers({key: value for key, value in draft.fields.items() if key != "name"})
    word = {} if draft.trigger_word is None else {"triggerWord": draft.trigger_word}
    layers = [own, ConfigLayer(meta=word), *preset, *base]
    given = [layer.fields[key] for key in ("outputPath",) for layer in layers if layer.fields.get(key)]
    path = str(given[0]) if given else DEFAULT_OUTPUT
    for name, text in (("dataset", draft.dataset_name), ("config", draft.config_name), ("name", draft.title)):
        path = path.replace(f"{{{name}}}", _as_part(text))
    naming = ConfigLayer(fields={"name": draft.title, "outputPath": path})
    try:
        resolved = resolve_config([naming, *layers], default_name=draft.title)
    except ValidationError as error:
        if "modelName" in error.field_errors and not any(layer.fields.get("modelName") for layer in layers):
            text = "Field required: sd15, sdxl, a hub id, a folder or a .safetensors file"
            error.field_errors["modelName"] = [text]
        raise
    training = Training(
        name=resolved.config.name,
        dataset=draft.dataset,
        dataset_name=draft.dataset_name,
        config=resolved.config,
        where=draft.where,
    )
    return training, resolved.warnings


def _layers(fields: Mapping[str, Any]) -> list[ConfigLayer]:
    """The fields themselves, then those of their preset."""
    given = dict(fields)
    preset = given.pop("preset", None)
    layers = [ConfigLayer.of(given)]
    if preset is None:
        return layers
    if preset not in get_args(PresetName):
        text = f"There is no preset '{preset}'; there are {', '.join(PRESETS)}"
        raise ValidationError(field_errors={"preset": [text]})
    return [*layers, preset_layer(preset)]


def _as_part(text: str) -> str:
    """A text as a part of a path; where no Latin letter or digit is in it, by its hash."""
    return slug(text, default=hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8], longest=100)


def _collisions(trainings: Iterable[Training]) -> list[Problem]:
    """Trainings that would be called or write like an earlier one."""
    found = []
    names: dict[str, str] = {}
    paths: dict[str, str] = {}
    for training in trainings:
        place = f"{training.where}, dataset '{training.dataset_name}'"
        path = output_path(training.config)
        if other := names.get(training.name):
            text = f"Two trainings would be called '{training.name}', the other by {other}: give one another `name`."
            found.append(Problem(where=place, text=text))
        elif other := paths.get(path):
            text = (
                f"Two trainings would write to {path}, the other by {other}: give one another `name`, or put {{name}} "
                "into outputPath."
            )
            found.append(Problem(where=place, text=text))
        names.setdefault(training.name, place)
        paths.setdefault(path, place)
    return found
