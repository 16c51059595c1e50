"""The one table from errors to HTTP, and the one shape of an error's body."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from influencerai.domain.wire import MOST_ERRORS, Number, WireModel
from influencerai.errors import (
    AuthenticationError,
    ConflictError,
    DatasetError,
    InfluencerAIError,
    ModelError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    StoreError,
    TooLargeError,
    TooManyError,
    ValidationError,
)
from influencerai.files.tenant_folders import TenantFolders
from influencerai.serve.disconnection import DisconnectedError

STATUS: tuple[tuple[type[InfluencerAIError], int], ...] = (
    (ValidationError, 400),
    (RefusedError, 400),
    (DatasetError, 400),
    (ModelError, 400),
    (AuthenticationError, 401),
    (TooLargeError, 413),
    (PermissionDeniedError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (TooManyError, 429),
    (StoreError, 503),
    (InfluencerAIError, 500),
)
"""The first class that an error belongs to decides."""
UNEXPECTED = "Internal server error"
SENTENCES = {
    404: "There is no such route",
    405: "This route has no such method",
    413: "The body is too large",
    416: "The range is not in the file",
}
_BY_STATUS = {
    400: ("bad_request", "Send what the page at /api shows for this route."),
    401: (AuthenticationError.code, AuthenticationError.advice),
    403: (PermissionDeniedError.code, PermissionDeniedError.advice),
    404: ("no_route", "The page at /api lists the routes."),
    405: ("method_not_allowed", "Use one of the methods in the header Allow."),
    408: ("timeout", "Send the whole request without a pause, over a connection that is fast enough."),
    413: ("too_large", "Send less, or raise the limit in the server's settings."),
    414: ("address_too_long", "Send a shorter address: fewer or shorter query parameters."),
    416: ("range", "Ask for a range inside of the file, or for the whole file."),
    429: (TooManyError.code, TooManyError.advice),
    431: ("headers_too_large", "Send fewer or shorter headers."),
    500: ("internal", "See the server's log: it has the request by the header X-Request-Id."),
    503: (StoreError.code, "Try again in a few seconds."),
}
"""Codes and remedies of errors that are none of ours."""
_NO_OBJECT = "The body should be a JSON object, sent as content-type: application/json"
_RETRY_SECONDS = 5
_CLIENT_CLOSED_REQUEST = 499
"""nginx's code; HTTP has none."""
_log = logging.getLogger(__name__)


class FieldErrors(WireModel):
    """Errors by field."""

    field_errors: dict[str, list[str]] = Field(description="Messages by field; nested ones as `payload.datasetId`.")


class QuotaExcess(WireModel):
    """A quota that does not allow more."""

    name: str
    used: Number
    limit: Number


class ErrorBody(WireModel):
    """Every error's body."""

    status_code: int
    message: str
    errors: FieldErrors | None = None
    code: str = Field(description="Stable name of the kind of error, such as validation, not_found or conflict.")
    remedy: str | None = Field(default=None, description="What to do about it.")
    id: str | None = Field(default=None, description="What a conflict is with.")
    quota: QuotaExcess | None = Field(default=None, description="The quota that is used up.")


class UnexpectedErrors:
    """ASGI middleware, the innermost: what no handler knows is answered too, with every header that others add."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception:
            if has_begun or scope["type"] != "http":
                raise
            _log.exception("The request failed on an unexpected error.")
            await plain_error(500, UNEXPECTED)(scope, receive, send)


def add_error_handlers(app: FastAPI, routes: Sequence[BaseRoute], *, folders: TenantFolders) -> None:
    """Answer every error that `routes` raise in the one shape; where on this machine the root lies is not said."""

    @app.exception_handler(InfluencerAIError)
    async def answer_ours(request: Request, error: InfluencerAIError) -> Response:
        response = error_response(error, folders=folders)
        if response.status_code >= 500:  # which its sender cannot mend
            _log.error("The request failed: %s", error)
        return response

    @app.exception_handler(DisconnectedError)
    async def answer_nobody(request: Request, error: DisconnectedError) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)  # for the log; nobody receives it

    @app.exception_handler(RequestValidationError)
    async def answer_validation(request: Request, error: RequestValidationError) -> Response:
        return error_response(ValidationError(field_errors=_field_errors(error.errors())))

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        message = SENTENCES.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _allowed(routes, request.url.path)
        return plain_error(error.status_code, message, headers=headers)


def error_response(error: InfluencerAIError, *, folders: TenantFolders | None = None) -> Response:
    """The answer that an error of ours becomes; with `folders`, its paths begin at the root."""
    body = error_body(error)
    headers = {}
    if body["statusCode"] == 401:
        headers["www-authenticate"] = "Bearer"
    if body["statusCode"] in (429, 503):
        headers["retry-after"] = str(getattr(error, "retry_after", _RETRY_SECONDS))
    if folders is not None:
        body |= {name: folders.shown(body[name]) for name in ("message", "remedy")}
    return _response(body, headers)


def error_body(error: InfluencerAIError) -> dict[str, Any]:
    """The body of the answer that an error of ours becomes."""
    fields: Mapping[str, list[str]] = getattr(error, "field_errors", {})
    return plain_body(
        next(status for kind, status in STATUS if isinstance(error, kind)),
        error.public_message,
        errors={"fieldErrors": dict(fields)} if fields else None,
        code=error.code,
        remedy=error.remedy or error.advice,
        id=getattr(error, "existing_id", None),
        quota=getattr(error, "quota", None),
    )


def plain_error(status: int, message: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """An answer in the one shape; code and remedy are those of the status where none are given."""
    return _response(plain_body(status, message, **more), headers)


def plain_body(status: int, message: str, **more: Any) -> dict[str, Any]:
    """The body of an error; code and remedy are those of the status where none are given."""
    code, remedy = _BY_STATUS.get(status, (InfluencerAIError.code, InfluencerAIError.advice))
    given = {name: value for name, value in more.items() if value}
    return {"statusCode": status, "message": message, "code": code, "remedy": remedy, **given}


def _response(body: dict[str, Any], headers: Mapping[str, str] | None) -> Response:
    # ASCII, since a message may repeat half a surrogate pair of its request.
    return Response(json.dumps(body), body["statusCode"], headers, "application/json")


def _allowed(routes: Iterable[BaseRoute], path: str) -> str:
    """The methods of every route to a path; Starlette names those of the first one only."""
    found = [route for route in routes if isinstance(route, Route) and route.path_regex.match(path)]
    exact = [route for route in found if route.path == path]  # `series` is no job's id
    methods = {method for route in exact or found for method in route.methods or ()}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _field_errors(errors: Iterable[Any]) -> dict[str, list[str]]:
    """FastAPI's report as {wire name: messages}; an error of the whole body stands under `_`."""
    found: dict[str, list[str]] = {}
    for item in islice(errors, MOST_ERRORS):
        if item["type"] == "json_invalid":
            found["_"] = [f"The body is no JSON: {item['ctx']['error']}"]
            continue
        if item["loc"] == ("body",):
            found["_"] = [_NO_OBJECT]
            continue
        name = ".".join(str(part) for part in item["loc"][1:])
        found.setdefault(name.removesuffix("._") or "_", []).append(item["msg"].removeprefix("Value error, "))
    return found
