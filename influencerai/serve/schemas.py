"""Schemas of the API's document that pydantic does not write: jobs by status, and documents that are kept as sent."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.job import JobPayload
from influencerai.domain.job_result import CompletedResult, FailedResult, RunningResult
from influencerai.domain.wire import SCHEMA_OF

_TEMPLATE = "#/components/schemas/{model}"
_JOBS = ("Job", "JobDetail", "WarnedJob")
"""Each becomes a union of one schema per status."""
_RESULTS: dict[str, tuple[type[BaseModel], bool]] = {
    "pending": (RunningResult, True),
    "running": (RunningResult, False),
    "completed": (CompletedResult, True),
    "failed": (FailedResult, True),
}
"""By status: shape of the result, and whether it may be null, as where a worker that is not ours sent none."""
_RESULT_TEXT = (
    "As our workers write it. A worker that is not ours may leave fields out and add others; null where it sent none."
)
_AS_SENT: dict[str, str] = {
    LoraConfig.__name__: "LoraConfig-Input",
    JobPayload.__name__: "JobPayload",
    TrainingOptions.__name__: "TrainingOptions",
}
"""By the model that describes a document: name of the schema for requests, in which most fields may be absent."""


def complete_schemas(document: dict[str, Any]) -> None:
    """Add the schemas that routes only imply, and put references to them where `SCHEMA_OF` stands."""
    schemas = document["components"]["schemas"]
    for model in (TrainingOptions, RunningResult, CompletedResult, FailedResult):
        _add(schemas, model)
    schemas["TrainingOptions"]["additionalProperties"] = True
    for found in dictionaries(document):
        if (name := found.pop(SCHEMA_OF, None)) is not None:
            found.pop("type")
            found.pop("additionalProperties", None)
            found["$ref"] = _TEMPLATE.format(model=_AS_SENT[name])
    for name in _JOBS:
        _split_by_status(schemas, name)


def name_schemas(document: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename schemas, in their order, with every reference to them."""
    components = document["components"]
    components["schemas"] = {names.get(name, name): schema for name, schema in components["schemas"].items()}
    references = {_TEMPLATE.format(model=old): _TEMPLATE.format(model=new) for old, new in names.items()}
    for found in dictionaries(document):
        if (new := references.get(found.get("$ref", ""))) is not None:
            found["$ref"] = new


def _add(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    found = model.model_json_schema(by_alias=True, ref_template=_TEMPLATE)
    schemas.update(found.pop("$defs", {}))
    schemas[model.__name__] = found


def _split_by_status(schemas: dict[str, Any], name: str) -> None:
    """A union of one schema per status, so that the status tells a client which result there is."""
    whole = schemas[name]
    mapping = {}
    for status, (result, may_be_null) in _RESULTS.items():
        variant = f"{status.capitalize()}{name}"
        schema = copy.deepcopy(whole)
        schema["title"] = variant
        schema["properties"]["status"] = {"const": status, "type": "string"}
        reference = {"$ref": _TEMPLATE.format(model=result.__name__)}
        shape = {"anyOf": [reference, {"type": "null"}]} if may_be_null else reference
        schema["properties"]["result"] = {**shape, "description": _RESULT_TEXT}
        schemas[variant] = schema
        mapping[status] = _TEMPLATE.format(model=variant)
    schemas[name] = {
        "title": name,
        "description": whole.get("description", ""),
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "status", "mapping": mapping},
    }


def dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document, the outer ones first."""
    if isinstance(value, dict):
        yield value
    for item in list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from dictionaries(item)
