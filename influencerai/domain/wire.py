"""Wire models, the base of every noun: camelCase in JSON, frozen in memory, misspelt fields refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from types import MappingProxyType, NoneType
from typing import Annotated, Any, ClassVar, Self, get_args

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainSerializer,
    StrictFloat,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from influencerai.errors import ValidationError
from influencerai.spelling import nearest


def _as_sent(number: float) -> float:
    return int(number) if float(number).is_integer() else number


Number = Annotated[
    StrictFloat,
    PlainSerializer(_as_sent, return_type=int | float),
    WithJsonSchema({"type": "number"}, mode="serialization"),
]
"""A float that is written as JSON writes it: 16, not 16.0."""


class SchemaOf:
    """Annotation of a document that is kept as it was sent: its JSON schema is the one of `model`."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.name = model.__name__
        self.model = model

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "object", SCHEMA_OF: self.name}


SCHEMA_OF = "x-schema-of"
"""In a JSON schema: name of the component that describes the object, for whoever writes the API's document."""


def _as_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[
    datetime,
    PlainSerializer(_as_text, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2025-01-15T10:30:00.000Z"]}),
]
"""A time in UTC, written as ISO 8601 with milliseconds and Z."""


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("Input should hold no NUL")
    return value


NO_NUL = AfterValidator(_without_nul)
"""Of texts that a database compares: Postgres knows none with NUL."""


STORED: Mapping[str, Any] = MappingProxyType({"stored": True})
"""Context of validating what was validated before: near misses are not searched again."""
MOST_UNKNOWN = 100
"""Unknown names of one object in a request; elsewhere so many are compared, since each comparison costs time."""
_LONGEST_NAME = 64
"""Characters; no field's name is longer, so a longer name is no near miss."""
LARGEST_DOCUMENT = 64 * 1024
"""Bytes of a free document as JSON: a page of a list holds 100 of them."""


class WireObject(dict[str, Any]):
    """An object in a request's JSON: a field has its wire name alone, and few names may be unknown."""


def _bounded(value: Any) -> Any:
    if isinstance(value, WireObject):
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if (size := len(text.encode())) > LARGEST_DOCUMENT:
            raise ValueError(f"As JSON it has {-(-size // 1024)} KiB, and may have {LARGEST_DOCUMENT // 1024}")
    return value


BOUNDED = BeforeValidator(_bounded)
"""Of an object that is kept as it was sent: in a request its size is bounded."""
Document = Annotated[dict[str, Any], BOUNDED]
"""Free JSON, kept as it was sent; in a request its size is bounded."""


class WireModel(BaseModel):
    """A frozen model that reads camelCase or snake_case and writes camelCase; a `WireObject` is camelCase alone.

    Unknown fields are ignored, and reported by `unknown_fields`; a near miss of a known field (`learningrate`)
    is an error with the suggestion, since a silently ignored typo costs a user days. A null where a field has a
    default other than null counts as absent. Types are strict where users write: an integer is no `true`,
    `"20"` or `20.0`, while a float may be written as an integer.
    """

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", allow_inf_nan=False
    )
    server_fields: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_near_misses(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Report near misses beside every other error, but not that the fields which they stand for are missing."""
        if not isinstance(data, Mapping) or info.context is STORED:
            return handler(data)
        doubled = {} if isinstance(data, WireObject) else cls.doubled_fields(data)
        unknown = cls.unknown_fields(data)
        if isinstance(data, WireObject) and len(unknown) > MOST_UNKNOWN:
            excess = f"{len(unknown)} fields are unknown here, and at most {MOST_UNKNOWN} may be"
            raise pydantic.ValidationError.from_exception_data(
                cls.__name__, [_error("too_many_unknown", excess, loc=("_",))]
            )
        refused = {name: text for name in islice(unknown, MOST_UNKNOWN) if (text := cls.refusal_of(name))}
        if not refused and not doubled:
            return handler(data)
        missing = {("missing", (cls.nearest_field(name),)) for name in refused}
        errors = [_error("near_miss", text, loc=(name,)) for name, text in refused.items()]
        errors += [_error("doubled", text, loc=(name,)) for name, text in doubled.items()]
        try:
            handler(data)
        except pydantic.ValidationError as error:
            errors += [
                _error(item["type"], item["msg"], loc=item["loc"])
                for item in error.errors()
                if (item["type"], item["loc"]) not in missing
            ]
        raise pydantic.ValidationError.from_exception_data(cls.__name__, errors)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        absent = _fields_without_null(cls)
        kept = {key: value for key, value in data.items() if value is not None or key not in absent}
        return WireObject(kept) if isinstance(data, WireObject) else kept

    @classmethod
    def wire_names(cls) -> list[str]:
        """The names of the fields as they stand in JSON."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def by_wire_name(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """`data` with the fields of this model by their names in JSON, the rest as it is.

        Raises:
            ValidationError: a field stands there in both spellings.
        """
        if doubled := cls.doubled_fields(data):
            raise ValidationError(field_errors={name: [text] for name, text in doubled.items()})
        names = _wire_name_of(cls)
        return {names.get(name, name): value for name, value in data.items()}

    @classmethod
    def doubled_fields(cls, data: Mapping[str, Any]) -> dict[str, str]:
        """Why a field is refused that has a value under its wire name and another under its Python name."""
        return {
            wire: f"This stands twice, as '{name}' and as '{wire}'"
            for name, wire in _wire_name_of(cls).items()
            if name != wire and data.get(name) is not None and data.get(wire) is not None
        }

    @classmethod
    def by_any_name(cls, name: str) -> str | None:
        """The wire name of the field that `name` is the wire name or the Python name of; None where it is neither."""
        return name if name in cls.wire_names() else _wire_name_of(cls).get(name)

    @classmethod
    def unknown_fields(cls, data: Mapping[str, Any]) -> list[str]:
        """Names in `data` that are no field of this model, in order."""
        known = _wire_fields(cls) if isinstance(data, WireObject) else _known_fields(cls)
        return [str(name) for name in data if name not in known]

    @classmethod
    def nearest_field(cls, name: str) -> str | None:
        """The wire name that `name` is a near miss of, or None."""
        if len(name) > _LONGEST_NAME:
            return None
        folded = {known.lower(): known for known in cls.wire_names()}
        key = name.replace("_", "").replace("-", "").lower()
        return folded[key] if key in folded else folded.get(nearest(key, folded) or "")

    @classmethod
    def refusal_of(cls, name: str) -> str | None:
        """Why an unknown field of this name is an error; None where it is ignored with a warning."""
        meant = cls.nearest_field(name)
        return f"Unknown field '{name}', did you mean '{meant}'?" if meant else None

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, prefix: str = "") -> Self:
        """Validate `data`.

        Raises:
            ValidationError: with one entry per bad field, named `prefix` + wire name.
        """
        try:
            return cls.model_validate(_mapping(data, of=cls))
        except pydantic.ValidationError as error:
            raise ValidationError(field_errors=field_errors(error, prefix=prefix)) from error

    @classmethod
    def restore(cls, data: Mapping[str, Any]) -> Self:
        """Read what an earlier version has stored; names that it let pass are no near misses now.

        Raises:
            ValidationError: with one entry per bad field.
        """
        try:
            return cls.model_validate(_mapping(data, of=cls), context=STORED)
        except pydantic.ValidationError as error:
            raise ValidationError(field_errors=field_errors(error)) from error

    def __setattr__(self, name: str, value: Any) -> None:
        """Refused: a model is frozen.

        Raises:
            ValidationError: says how to have another value.
        """
        raise self._frozen(name)

    def __delattr__(self, name: str) -> None:
        raise self._frozen(name)

    def _frozen(self, name: str) -> ValidationError:
        return ValidationError(field_errors={name: [f"A {type(self).__name__} is frozen: {self._way_to_change(name)}"]})

    @classmethod
    def _way_to_change(cls, name: str) -> str:
        """How to have another value of the field."""
        return "make another one with the new value"

    def to_wire(self) -> dict[str, Any]:
        """The JSON form: camelCase, plain types."""
        return self.model_dump(mode="json", by_alias=True)


# Cached, since every model that is read asks, and the answer costs more than reading it.
@cache
def _known_fields(model: type[WireModel]) -> frozenset[str]:
    return frozenset({*model.model_fields, *model.wire_names(), *model.server_fields})


@cache
def _wire_name_of(model: type[WireModel]) -> Mapping[str, str]:
    """{name in Python: wire name}"""
    return MappingProxyType({name: field.alias or name for name, field in model.model_fields.items()})


@cache
def _wire_fields(model: type[WireModel]) -> frozenset[str]:
    return frozenset({*model.wire_names(), *model.server_fields})


@cache
def _fields_without_null(model: type[WireModel]) -> frozenset[str]:
    fields = {key: field for name, field in model.model_fields.items() for key in (name, field.alias or name)}
    return frozenset(key for key, field in fields.items() if not _takes_null(field))


def _takes_null(field: FieldInfo) -> bool:
    return field.is_required() or NoneType in get_args(field.annotation)


def _mapping(data: object, *, of: type[WireModel]) -> dict[str, Any]:
    """A copy of the document.

    Raises:
        ValidationError: it is no mapping.
    """
    if not isinstance(data, Mapping):
        raise ValidationError(f"A {of.__name__} is read from a mapping of its fields, not from {type(data).__name__}.")
    return dict(data)


def _error(kind: str, text: str, *, loc: tuple[int | str, ...]) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{text}", {"text": text}), loc=loc, input=None)


MOST_ERRORS = 100
"""Errors of one document that are named."""


def field_errors(error: pydantic.ValidationError, *, prefix: str = "") -> dict[str, list[str]]:
    """pydantic's report as {wire name: messages}; an error of the whole document stands under `_`."""
    found: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False)[:MOST_ERRORS]:
        name = prefix + ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        found.setdefault(name.rstrip(".").removesuffix("._") or "_", []).append(text)
    return found
