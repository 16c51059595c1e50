"""Command-line options for every field of a config, made from the field itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click
from pydantic import BaseModel

from influencerai.domain import LoraConfig, TrainingOptions

ELSEWHERE = frozenset({"name", "description", "model_name", "meta", "is_default"})
"""Fields of LoraConfig that have an option of another kind, or none."""

NULL: Final = "none"
"""What a user writes for a field to be null, such as `--min-snr-gamma none`."""

MORE_NAMES = {"file_format": "--format", "sample_prompts": "--sample-prompt"}
"""Second, shorter names of options."""

F = TypeVar("F", bound=Callable[..., Any])


class ConfigOption(click.Option):
    """An option that stands for one field; `wire_name` is the field's, `section` its heading in the help."""

    def __init__(self, *args: Any, wire_name: str, section: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.wire_name = wire_name
        self.section = section


class ConfigCommand(click.Command):
    """A command whose help lists the options of each config model under a heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                heading = parameter.section if isinstance(parameter, ConfigOption) else "Options"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def config_options(command: F) -> F:
    """Decorate a command with an option per field of LoraConfig and of TrainingOptions."""
    sections: tuple[tuple[type[BaseModel], str], ...] = (
        (LoraConfig, "The LoRA"),
        (TrainingOptions, "Further options (a config's meta)"),
    )
    for model, section in reversed(sections):
        properties = model.model_json_schema(by_alias=True)["properties"]
        for name, field in reversed(model.model_fields.items()):
            if name not in ELSEWHERE:
                wire_name = field.alias or name
                command = _option(name, wire_name, properties[wire_name], section)(command)
    return command


def given_fields(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Wire name to value of the fields of `model` that options were given for."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        value = values.get(name)
        if name not in ELSEWHERE and value is not None and value != ():
            found[field.alias or name] = None if value == NULL else value
    return found


def option_of(wire_name: str) -> str | None:
    """The option that sets the field of this wire name, with or without `meta.`, or None."""
    for model in (LoraConfig, TrainingOptions):
        for name, field in model.model_fields.items():
            if field.alias == wire_name.removeprefix("meta.") and name not in ELSEWHERE:
                return _flag(name)
    return None


class _Names(click.Choice[str]):
    """Words in any case, shown in their own."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(self.choices)}]"


class _Nullable(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A value of another type, or the word for null."""

    def __init__(self, inner: click.ParamType[Any, Any]) -> None:
        self.inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return NULL if value == NULL else self.inner.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self.inner.get_metavar(param, ctx)


def _option(name: str, wire_name: str, schema: dict[str, Any], section: str) -> Callable[[F], F]:
    flag = _flag(name)
    names = [MORE_NAMES[name], flag] if name in MORE_NAMES else [flag]
    kind, nullable = _type_of(schema)
    if schema.get("type") == "boolean" or kind is click.BOOL:
        names = [f"{flag}/--no-{flag.removeprefix('--')}"]
    return click.option(
        *names,
        name,
        cls=ConfigOption,
        wire_name=wire_name,
        section=section,
        type=_Nullable(kind) if nullable and kind is not click.BOOL else kind,
        multiple=schema.get("type") == "array",
        default=None,
        help=_help(schema, nullable=nullable),
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _type_of(schema: dict[str, Any]) -> tuple[click.ParamType[Any, Any], bool]:
    """The click type of a JSON schema, and whether null is allowed."""
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return _type_of(options[0])[0], len(options) < len(schema["anyOf"])
    if "enum" in schema:
        return _Names(schema["enum"], case_sensitive=False), False
    types: dict[str, click.ParamType[Any, Any]] = {
        "integer": click.INT,
        "number": click.FLOAT,
        "boolean": click.BOOL,
    }
    return types.get(schema.get("type", ""), click.STRING), False


def _help(schema: dict[str, Any], *, nullable: bool) -> str:
    """The field's description with its range and its default."""
    bounds = next((option for option in schema.get("anyOf", ()) if option.get("type") != "null"), schema)
    facts = [" ".join(_bounds(bounds))] if _bounds(bounds) else []
    default = schema.get("default")
    if default is not None and default != []:
        facts.append(f"default: {_shown(default)}")
    if schema.get("type") == "array":
        facts.append("repeatable")
    text = _option_names(schema.get("description", ""), nullable=nullable)
    return f"{text}  [{'; '.join(facts)}]" if facts else text


def _bounds(schema: dict[str, Any]) -> list[str]:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return [
        f"{word} {schema[key]:g}" if schema[key] < 1e12 else "to 2^63 - 1"
        for key, word in words.items()
        if key in schema
    ]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option_names(text: str, *, nullable: bool) -> str:
    """A description in which other fields go by the names of their options, and null by its word."""
    for model in (LoraConfig, TrainingOptions):
        for name, field in model.model_fields.items():
            if field.alias and field.alias != name:
                text = re.sub(rf"\b{field.alias}\b", _flag(name), text)
    return re.sub(r"\bnull\b", NULL, text) if nullable else text
