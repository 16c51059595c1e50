"""Where a config comes from on the command line: --set, then options, then the file, then the preset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.lora_config import without_other_aim
from influencerai.domain.output_path import last_part
from influencerai.domain.plain_values import check_plain
from influencerai.domain.presets import PRESETS, PresetName
from influencerai.errors import ValidationError
from influencerai.text_files import read_text_file

_LONGEST_NAME = 100
_LONGEST_NUMBER = 4000


@dataclass(frozen=True, kw_only=True)
class ConfigLayer:
    """Values by wire name: fields of a config, and keys of its meta."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """About the file that the values are from."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ConfigLayer:
        """A config's document, its names in camelCase or snake_case.

        Raises:
            ValidationError: `meta` is no mapping, an option of meta stands beside it, or a name stands there twice.
        """
        fields = _in_camel_case(document)
        meta = fields.pop("meta", None) or {}
        if not isinstance(meta, Mapping):
            raise ValidationError(field_errors={"meta": ["Input should be a mapping of options"]})
        misplaced = [name for name in fields if name in TrainingOptions.wire_names()]
        if misplaced:
            errors = {name: [f"This option belongs under meta: meta.{name}"] for name in misplaced}
            raise ValidationError(field_errors=errors)
        return cls(fields=fields, meta=_in_camel_case(meta, prefix="meta."))


@dataclass(frozen=True)
class ResolvedConfig:
    """A config, and what was ignored on the way to it."""

    config: LoraConfig
    warnings: tuple[str, ...]


def resolve_config(layers: Iterable[ConfigLayer], *, default_name: str) -> ResolvedConfig:
    """The config that `layers` give, the first one winning; without a name it is called like its output folder.

    Of that, or of `default_name`, as much is taken as a name may have.

    Raises:
        ValidationError: a value cannot be used, a name is a near miss of a field's, or there is no model.
    """
    fields: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    warnings: list[str] = []
    for layer in layers:
        meta = {**without_other_aim(layer.meta, given={*fields, *meta}), **meta}
        fields = {**layer.fields, **fields}
        warnings += layer.warnings
    output_path = fields.get("outputPath")
    name = (last_part(output_path) if isinstance(output_path, str) else "") or default_name
    fields.setdefault("name", name.encode(errors="replace").decode()[:_LONGEST_NAME])
    warnings += [f"{name} is not a field and is ignored." for name in LoraConfig.unknown_fields(fields)]
    try:
        return ResolvedConfig(LoraConfig.parse({**fields, "meta": meta}, ignore_unknown=True).aimed(), tuple(warnings))
    except ValidationError as error:
        if "modelName" in error.field_errors and not fields.get("modelName"):
            error.field_errors["modelName"] = ["Field required (--model, or modelName in the file)"]
            error.remedy = "Name a base model: sd15, sdxl, a hub id, a folder or a .safetensors file."
        raise


def preset_layer(name: PresetName) -> ConfigLayer:
    return ConfigLayer.of(PRESETS[name].fields())


def file_layer(path: Path) -> ConfigLayer:
    """A config file of at most 1 MiB, JSON by its suffix and YAML otherwise.

    Raises:
        ValidationError: names the file and what is wrong with it.
    """
    with _naming(f"The config file {path} cannot be read"):
        file = read_text_file(path)
        is_json = path.suffix.lower() == ".json"
        document = _parse_json(file.text) if is_json else yaml.load(file.text, Loader=_Loader)
        check_plain(document)
    if not isinstance(document, Mapping):
        raise ValidationError(f"The config file {path} holds no mapping of fields.")
    try:
        layer = ConfigLayer.of(document)
        return replace(layer, warnings=(f"{path} {file.warning}",)) if file.warning else layer
    except ValidationError as error:
        error.message = f"The config file {path} cannot be used"
        raise


def assignment_layer(assignments: Sequence[str]) -> ConfigLayer:
    """`key=value` texts: a field or a meta key, in either spelling, with or without `meta.`; the value is JSON or text.

    Raises:
        ValidationError: there is no `=`, the key is a near miss of a known one, or the value is none that JSON has.
    """
    fields: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        with _naming(f"--set {assignment[:80]!r} cannot be used"):
            check_plain(assignment)
            value = _value(text)
        if not equals or not key:
            raise ValidationError(f"--set {assignment} is not of the form key=value.")
        name = to_camel(key.strip().removeprefix("meta."))
        if name == "meta":
            meta.update(ConfigLayer.of({"meta": value}).meta)
        elif not key.startswith("meta.") and name in LoraConfig.wire_names():
            fields[name] = value
        else:
            _refuse_near_miss(name)
            meta[name] = value
    return ConfigLayer(fields=fields, meta=meta)


class _Loader(yaml.SafeLoader):
    """YAML that says no more than JSON can: no aliases, no key twice. `1e-4` is a number, as in YAML 1.2."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if event.anchor is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors (&name) and aliases (*name) are not allowed", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _LONGEST_NUMBER:
                raise ValueError("1:1:1:... takes minutes")
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError) as error:
            problem = f"{str(node.value)[:40]!r} cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value[:40]!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse_json(text: str) -> Any:
    """JSON in which a key that stands twice is an error, since one of the two values would be lost."""
    return json.loads(text, object_pairs_hook=_mapping)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} stands twice")
        found[key] = value
    return found


@contextmanager
def _naming(failure: str) -> Iterator[None]:
    """Turn what a parser raises into a ValidationError that starts with `failure`."""
    try:
        yield
    except RecursionError as error:
        raise ValidationError(f"{failure}: lists and mappings are nested too deeply.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValidationError(f"{failure}: {error}.") from error


def _in_camel_case(document: Mapping[Any, Any], *, prefix: str = "") -> dict[str, Any]:
    spellings: dict[str, Any] = {}
    for key in document:
        name = to_camel(str(key))
        if name in spellings:
            text = f"This stands twice, as '{spellings[name]}' and as '{key}'"
            raise ValidationError(field_errors={prefix + name: [text]})
        spellings[name] = key
    return {name: document[key] for name, key in spellings.items()}


def _refuse_near_miss(name: str) -> None:
    if name in TrainingOptions.wire_names():
        return
    for model in (LoraConfig, TrainingOptions):
        if nearest := model.nearest_field(name):
            raise ValidationError(field_errors={name: [f"Unknown field, did you mean '{nearest}'?"]})


def _value(text: str) -> Any:
    """JSON, or the text itself where it is none.

    Raises:
        ValueError, RecursionError: JSON that cannot be used.
    """
    try:
        value = _parse_json(text)
    except json.JSONDecodeError:
        value = text
    check_plain(value)
    return value
