"""Job metadata: texts that a user attaches to a job and finds it by."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from influencerai.domain.wire import NO_NUL

MOST = 20
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_.-]+$")]
MetadataValue = Annotated[str, StringConstraints(max_length=500), NO_NUL]
JobMetadata = Annotated[
    dict[MetadataKey, MetadataValue],
    Field(max_length=MOST),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MOST,
            "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,40}$"},
            "additionalProperties": {"type": "string", "maxLength": 500, "pattern": "^[^\\x00]*$"},
        }
    ),
]


def _check_filter(text: str) -> str:
    key, colon, _ = text.partition(":")
    if not key or not colon:
        raise ValueError("Input should be key:value, such as orderId:A-17")
    return text


MetadataFilter = Annotated[
    str,
    StringConstraints(max_length=541),
    NO_NUL,
    AfterValidator(_check_filter),
    WithJsonSchema({"type": "string", "maxLength": 541, "pattern": "^[^:\\x00]+:[^\\x00]*$"}),
]
"""Key and value, parted by the first colon, which no key has."""
