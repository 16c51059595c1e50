"""Answers: nouns out of what a server sends, and the errors of this package out of what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

import pydantic
from httpx2 import Response
from pydantic_core import from_json

from influencerai.domain.wire import WireModel
from influencerai.errors import (
    AuthenticationError,
    CheckpointError,
    ConflictError,
    DatasetError,
    DependencyMissingError,
    ExportError,
    InfluencerAIError,
    InUseError,
    ModelError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    StoreError,
    TooManyError,
    TrainingError,
    UnreachableError,
    ValidationError,
)

Noun = TypeVar("Noun", bound=WireModel)
_BY_STATUS: dict[int, type[InfluencerAIError]] = {
    400: RefusedError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: RefusedError,
    429: TooManyError,
    502: UnreachableError,
    503: StoreError,
    504: UnreachableError,
}
_SECONDS_TO_RETRY = 5
_ENDING = (CheckpointError, DatasetError, DependencyMissingError, ExportError, ModelError, ValidationError)
"""Errors that end a job, beside those of the training itself."""


def document_of(response: Response) -> Any:
    """The JSON of an answer.

    Raises:
        InfluencerAIError: it is none, so another kind of server has answered.
    """
    try:
        return from_json(response.content)
    except ValueError as error:
        raise _not_understood(response, "it is no JSON") from error


def items_of(response: Response) -> list[Any]:
    """The documents of a list, which stand bare or under `data`.

    Raises:
        InfluencerAIError: there is none.
    """
    document = document_of(response)
    found = document.get("data") if isinstance(document, dict) else document
    if not isinstance(found, list):
        raise _not_understood(response, "it is no list")
    return found


def total_of(response: Response) -> int:
    """How many items the whole list has.

    Raises:
        InfluencerAIError: the answer does not say.
    """
    try:
        return int(response.headers["x-total-count"])
    except (KeyError, ValueError) as error:
        raise _not_understood(response, "it does not say how many items there are") from error


def noun_of(model: type[Noun], document: Any, response: Response) -> Noun:
    """The document as a noun; a newer server's fields that only look like misspelt ones are left out.

    Raises:
        InfluencerAIError: it is none.
    """
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)
        if not all(item["type"] == "near_miss" for item in found):
            text = f"{model.__name__}: {found[0]['msg']} at {'.'.join(map(str, found[0]['loc']))}"
            raise _not_understood(response, text) from error
        for item in found:
            _drop(document, item["loc"])
        return noun_of(model, document, response)


def error_of(response: Response) -> InfluencerAIError:
    """The error that an answer is, as the class that the server raised."""
    try:
        found = from_json(response.content)
    except ValueError:
        found = None
    body: dict[str, Any] = found if isinstance(found, dict) else {}
    message = body.get("message")
    if not isinstance(message, str) or not message:
        message = f"{response.request.method} {response.request.url} was answered with {response.status_code}."
    fields = body.get("errors", {}).get("fieldErrors", {}) if isinstance(body.get("errors"), dict) else {}
    error = _error(response, body, message, fields if isinstance(fields, dict) else {})
    error.remedy = remedy if isinstance(remedy := body.get("remedy"), str) else None
    error.status_code = response.status_code
    return error


def retry_after(response: Response) -> float | None:
    """The seconds after which the server wants to be asked again; None where it does not say."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _error(response: Response, body: dict[str, Any], message: str, fields: dict[str, Any]) -> InfluencerAIError:
    kind = _kind(response.status_code, body.get("code"), has_fields=bool(fields))
    if issubclass(kind, ValidationError):
        return kind(message, field_errors=fields)
    if issubclass(kind, NotFoundError):
        error = kind(message)
        error.field_errors = dict(fields)
        return error
    if issubclass(kind, ConflictError):
        return kind(message, existing_id=body.get("id"))
    if issubclass(kind, TooManyError):
        return kind(message, retry_after=math.ceil(retry_after(response) or _SECONDS_TO_RETRY))
    return kind(message)


def _kind(status: int, code: Any, *, has_fields: bool) -> type[InfluencerAIError]:
    """By the code of the class where the server tells it, else by the status."""
    named = _by_code(code)
    if named is not None and not issubclass(named, InUseError):  # of which the count does not travel
        return named
    if status == 400 and has_fields:
        return ValidationError
    return _BY_STATUS.get(status, InfluencerAIError)


@cache
def failed_job_kind(code: str) -> type[TrainingError]:
    """The class of a failed job's error: a TrainingError that is also of the class that has the code."""
    named = _by_code(code) or TrainingError
    if issubclass(named, TrainingError):
        return named
    if not issubclass(named, _ENDING):
        return TrainingError
    return type(named.__name__, (named, TrainingError), {"__doc__": named.__doc__})


def _by_code(code: Any) -> type[InfluencerAIError] | None:
    return next((kind for kind in _tree(InfluencerAIError) if kind.__dict__.get("code", kind) == code), None)


def _tree(kind: type[InfluencerAIError]) -> Iterator[type[InfluencerAIError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


def _drop(document: Any, path: tuple[int | str, ...]) -> None:
    for part in path[:-1]:
        document = document[part]
    document.pop(path[-1], None)


def _not_understood(response: Response, what: str) -> InfluencerAIError:
    error = InfluencerAIError(
        f"The answer to {response.request.method} {response.request.url} is not understood: {what}.",
        remedy="Check the address of the server, and that client and server are of the same version.",
    )
    error.status_code = response.status_code
    return error
