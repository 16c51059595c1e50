"""Where a config comes from on the command line: --set, then options, then the file, then the preset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.output_path import last_part
from influencerai.domain.presets import PRESETS, PresetName
from influencerai.errors import ValidationError


@dataclass(frozen=True, kw_only=True)
class ConfigLayer:
    """Values by wire name: fields of a config, and keys of its meta."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ConfigLayer:
        """A config's document, its names in camelCase or snake_case.

        Raises:
            ValidationError: `meta` is no mapping, or an option of meta stands beside it.
        """
        fields = {to_camel(str(name)): value for name, value in document.items()}
        meta = fields.pop("meta", None) or {}
        if not isinstance(meta, Mapping):
            raise ValidationError(field_errors={"meta": ["Input should be a mapping of options"]})
        misplaced = [name for name in fields if name in TrainingOptions.wire_names()]
        if misplaced:
            errors = {name: [f"This option belongs under meta: meta.{name}"] for name in misplaced}
            raise ValidationError(field_errors=errors)
        return cls(fields=fields, meta={to_camel(str(name)): value for name, value in meta.items()})


@dataclass(frozen=True)
class ResolvedConfig:
    """A config, and what was ignored on the way to it."""

    config: LoraConfig
    warnings: tuple[str, ...]


def resolve_config(layers: Iterable[ConfigLayer], *, default_name: str) -> ResolvedConfig:
    """The config that `layers` give, the first one winning; without a name it is called like its output folder.

    Raises:
        ValidationError: a value cannot be used, a name is a near miss of a field's, or there is no model.
    """
    fields: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    for layer in layers:
        fields = {**layer.fields, **fields}
        meta = {**layer.meta, **meta}
    if not fields.get("modelName"):
        raise ValidationError(
            field_errors={"modelName": ["Field required (--model, or modelName in the file)"]},
            remedy="Name a base model: sd15, sdxl, a hub id, a folder or a .safetensors file.",
        )
    output_path = fields.get("outputPath")
    fields.setdefault("name", (last_part(output_path) if isinstance(output_path, str) else "") or default_name)
    warnings = tuple(f"{name} is not a field and is ignored." for name in LoraConfig.unknown_fields(fields))
    return ResolvedConfig(LoraConfig.parse({**fields, "meta": meta}), warnings)


def preset_layer(name: PresetName) -> ConfigLayer:
    return ConfigLayer.of(PRESETS[name].fields())


def file_layer(path: Path) -> ConfigLayer:
    """A config file, JSON by its suffix and YAML otherwise.

    Raises:
        ValidationError: names the file and what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else _parse_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, json.JSONDecodeError) as error:
        raise ValidationError(f"The config file {path} cannot be read: {error}.") from error
    if not isinstance(document, Mapping):
        raise ValidationError(f"The config file {path} holds no mapping of fields.")
    try:
        return ConfigLayer.of(document)
    except ValidationError as error:
        error.message = f"The config file {path} cannot be used"
        raise


def assignment_layer(assignments: Sequence[str]) -> ConfigLayer:
    """`key=value` texts: a field or a meta key, in either spelling, with or without `meta.`; the value is JSON or text.

    Raises:
        ValidationError: there is no `=`, or the key is a near miss of a known one.
    """
    fields: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ValidationError(f"--set {assignment} is not of the form key=value.")
        name = to_camel(key.strip().removeprefix("meta."))
        if name == "meta":
            meta.update(ConfigLayer.of({"meta": _value(text)}).meta)
        elif not key.startswith("meta.") and name in LoraConfig.wire_names():
            fields[name] = _value(text)
        else:
            _refuse_near_miss(name)
            meta[name] = _value(text)
    return ConfigLayer(fields=fields, meta=meta)


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number, as in YAML 1.2; PyYAML takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse_yaml(text: str) -> Any:
    """YAML in which a key that stands twice is an error, since one of the two values would be lost."""
    _refuse_repeated_keys(yaml.compose(text, Loader=_Loader))
    return yaml.load(text, Loader=_Loader)


def _refuse_repeated_keys(node: Any) -> None:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for index, (key, value) in enumerate(node.value):
            if key.value in keys[:index]:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            _refuse_repeated_keys(value)


def _refuse_near_miss(name: str) -> None:
    if name in TrainingOptions.wire_names():
        return
    for model in (LoraConfig, TrainingOptions):
        if nearest := model.nearest_field(name):
            raise ValidationError(field_errors={name: [f"Unknown field, did you mean '{nearest}'?"]})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
