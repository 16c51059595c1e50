"""KeywordModel: a wire model that people also build by hand, with keywords, and look at in a notebook."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from influencerai.domain.plain_values import plain
from influencerai.domain.wire import WireModel, WireObject, field_errors
from influencerai.errors import ValidationError


class KeywordModel(WireModel):
    """A wire model whose constructor and `parse` refuse unknown names with an error of `influencerai.errors`.

    Both take numbers, texts and paths of other libraries, see `plain`. `model_validate` reads what a program sent: it
    ignores unknown fields, as every `WireModel` does. The signature, the help and the completion of the constructor
    name the fields in snake_case with plain types.
    """

    def __init__(self, /, *positional: Any, **fields: Any) -> None:
        self._refuse_positional(positional, example=f"{type(self).__name__}({{}}=...)")
        fields = plain(fields)
        errors: dict[str, list[str]] = {
            self._shown_name(name): [text] for name, text in self.doubled_fields(fields).items()
        }
        names = _python_names(type(self))
        given = {names.get(name, name): value for name, value in self._keywords(fields).items()}
        errors |= {name: [self._unknown(name)] for name in given if name not in type(self).model_fields}
        known = {name: value for name, value in given.items() if name in type(self).model_fields}
        meant = {self.nearest_field(name) for name in errors}
        try:
            self.__pydantic_validator__.validate_python(known, self_instance=self)
        except pydantic.ValidationError as error:
            for name, texts in field_errors(error).items():
                if name not in meant or texts != ["Field required"]:
                    errors[self._shown_name(name)] = texts
        if errors:
            raise ValidationError(field_errors=errors)

    # pydantic would otherwise call the constructor for every document that it validates.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.__signature__ = inspect.Signature(cls._parameters())
        lines = [_argument_line(parameter, cls._description(parameter.name)) for parameter in cls._parameters()]
        cls.__doc__ = "\n".join([inspect.getdoc(cls) or "", "", "Args:", *lines])

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The description is the docstring without its arguments, which the schema lists itself."""
        found = handler(schema)
        handler.resolve_ref_schema(found)["description"] = (inspect.getdoc(cls) or "").partition("\n\n")[0]
        return found

    @classmethod
    def _parameters(cls) -> list[inspect.Parameter]:
        """The keywords of the constructor: snake_case, types without their constraints."""
        return [_parameter(name, field) for name, field in cls.model_fields.items()]

    @classmethod
    def _description(cls, name: str) -> str:
        """The description of one keyword."""
        field = cls.model_fields.get(name)
        return (field and field.description) or ""

    @classmethod
    def _shown_name(cls, wire_name: str) -> str:
        """The name of a field as the caller of the constructor writes it."""
        return _python_names(cls).get(wire_name, wire_name)

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, prefix: str = "", ignore_unknown: bool = False) -> Self:
        """Read a document, its names in camelCase or snake_case.

        With `ignore_unknown`, for what was read from JSON or YAML, unknown names are left to the caller, who tells of
        them (`unknown_fields`).

        Raises:
            ValidationError: with one entry per bad field or unknown name, named `prefix` + wire name.
        """
        if isinstance(data, cls):
            return data
        # Parts of a request are WireObjects too, and have to stay so.
        document = data if ignore_unknown or isinstance(data, WireObject) else plain(data)
        errors: dict[str, list[str]] = {}
        if isinstance(document, Mapping) and not ignore_unknown:
            unknown = [name for name in cls.unknown_fields(document) if cls.refusal_of(name) is None]
            errors = {prefix + name: [cls._unknown(name)] for name in unknown}
        try:
            found = super().parse(document, prefix=prefix)
        except ValidationError as error:
            error.field_errors |= errors
            raise
        if errors:
            raise ValidationError(field_errors=errors)
        return found

    def with_(self, *positional: Any, **changes: Any) -> Self:
        """A validated copy with `changes`, named as in the constructor.

        Raises:
            ValidationError: a name or a value cannot be used.
        """
        self._refuse_positional(positional, example="with_({}=...)")
        changes = plain(changes)
        if doubled := self.doubled_fields(changes):
            raise ValidationError(field_errors={self._shown_name(name): [text] for name, text in doubled.items()})
        names = _python_names(type(self))
        new = {names.get(name, name): value for name, value in self._keywords(changes, base=self).items()}
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set if name not in new} | new)

    @classmethod
    def _keywords(cls, fields: dict[str, Any], *, base: Self | None = None) -> dict[str, Any]:
        """The fields that keywords stand for; `base` is the model that they change."""
        return fields

    @classmethod
    def _refuse_positional(cls, values: tuple[Any, ...], *, example: str) -> None:
        if values:
            first = next(iter(cls.model_fields))
            hint = f" A document is read by {cls.__name__}.parse(...)." if isinstance(values[0], Mapping) else ""
            raise ValidationError(
                f"A {cls.__name__} takes keywords alone, and {type(values[0]).__name__} stands there without one.",
                remedy=f"Name each field: {example.format(first)}.{hint}",
            )

    @classmethod
    def _way_to_change(cls, name: str) -> str:
        return f"make a changed copy by with_({cls._shown_name(name)}=...)"

    @classmethod
    def _unknown(cls, name: str) -> str:
        suggestion = cls.nearest_field(name)
        if suggestion is None:
            return f"There is no field '{name}'."
        return f"There is no field '{name}', did you mean '{_python_names(cls).get(suggestion, suggestion)}'?"

    def __dir__(self) -> list[str]:
        """Fields and methods of our own: completion does not show what pydantic brings."""
        own = set(super().__dir__()) - set(dir(BaseModel))
        return sorted(name for name in own | set(type(self).model_fields) if not name.startswith("_"))


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    default: Any = inspect.Parameter.empty
    if not field.is_required():
        default = field.get_default(call_default_factory=True)
        default = list(default) if isinstance(default, tuple) else default
    annotation = plain_type(field.annotation)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def plain_type(annotation: Any) -> Any:
    """The type without pydantic's constraints: `Annotated[str, ...]` becomes `str`, a tuple is written as a list."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return plain_type(arguments[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(plain_type(argument) for argument in arguments)]  # noqa: UP007 - made at run time
    if origin is tuple:
        return list[plain_type(arguments[0])]  # type: ignore[misc]
    if origin is not None and origin is not Literal and arguments:
        return origin[tuple(plain_type(argument) for argument in arguments)]
    return annotation


def type_text(annotation: Any) -> str:
    """The type as it is written in Python."""
    if annotation is types.NoneType:
        return "None"
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(type_text(argument) for argument in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(repr(value) for value in get_args(annotation))
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def _python_names(model: type[WireModel]) -> Mapping[str, str]:
    """{wire name: name in Python}"""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _argument_line(parameter: inspect.Parameter, description: str) -> str:
    default = "" if parameter.default is inspect.Parameter.empty else f", default {parameter.default!r}"
    return f"    {parameter.name} ({type_text(parameter.annotation)}{default}): {description}"
