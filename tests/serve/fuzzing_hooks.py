"""What schemathesis is told beyond the API's document: how its data is sent, and which refusals are right."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.generation.meta import TestPhase

_PROSE = ("path", "outputPath", "meta", "files", "captions", "_")
"""Fields, at whatever depth, whose rules stand in the document's sentences, not in its schemas."""
_SENTENCES = (
    {"Required, since the tenant has no default configuration"},
    {"Input should hold no NUL"},
    {"Name a configuration by loraConfigId or send one as loraConfig, not both"},
    {"Input should hold no line breaks, and no control or format characters"},
)
"""Refusals that no schema could say: of the tenant's state, of what no database keeps, of Unicode's categories, and of
fields that exclude each other."""


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Send whole numbers as integers: to a schema 20.0 is one, to the API it is none."""
    return _whole(body)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """In a story a repeated key would bring back the answer about something that was deleted since."""
    if case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL:
        case.headers.pop("Idempotency-Key", None)


@schemathesis.check
def accepts_what_the_document_allows(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """A request that follows the document is not refused for its form; what the rows allow is another matter."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return None
    fields = response.json().get("errors", {}).get("fieldErrors", {})
    wrong = {
        name: texts
        for name, texts in fields.items()
        if not set(name.split(".")) & set(_PROSE) and set(texts) not in _SENTENCES
    }
    assert not wrong, f"The document allows this request, and the API refuses {wrong}"
    return None


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
