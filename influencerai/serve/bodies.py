"""Bodies: JSON as it is read from requests and written to answers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from influencerai.domain.page import Page
from influencerai.domain.plain_values import check_plain
from influencerai.domain.wire import WireModel, WireObject
from influencerai.errors import ValidationError
from influencerai.store.idempotency import RequestKey

_LEVELS = 64
_DIGITS = 4000
MOST_VALUES = 20_000
"""Values in a body: each costs a microsecond of the event loop wherever it is looked at."""


class StrictRequest(Request):
    """A request whose body is bounded and whose JSON is standard: no NaN, no half surrogate pairs, no deep nesting."""

    max_bytes: int

    async def stream(self) -> AsyncGenerator[bytes, None]:
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_bytes:
            raise HTTPException(413)
        received = 0
        async for chunk in super().stream():
            received += len(chunk)
            if received > self.max_bytes:
                raise HTTPException(413)
            yield chunk

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = _parse(await self.body())
        return self._json


def strict_route(max_bytes: int) -> type[APIRoute]:
    """A class of routes that read their bodies by `StrictRequest`, up to so many bytes."""

    class StrictRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                strict = StrictRequest(request.scope, request.receive)
                strict.max_bytes = max_bytes
                return await handler(strict)

            return handle

    return StrictRoute


async def body_as_sent(request: Request) -> Any:
    """The body before any model looked at it; None where it is no JSON, which FastAPI then refuses."""
    try:
        return await request.json()
    except json.JSONDecodeError:
        return None


async def request_key(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Sent again with the same body within 24 hours, it gets the same answer and makes nothing new.",
            json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[ -~\u00a1-\u00ac\u00ae-\u00ff]+$"},
        ),
    ] = None,
) -> RequestKey | None:
    """Where a repetition of this request is recognised."""
    if key is None:
        return None
    if not key or len(key) > 255 or not key.isprintable():
        raise ValidationError(field_errors={"Idempotency-Key": ["Input should be 1 to 255 printable characters"]})
    body = await body_as_sent(request)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return RequestKey(route=f"{request.method} {request.url.path}"[:255], key=key, body_sha256=digest)


SentBody = Annotated[dict[str, Any], Depends(body_as_sent)]
MaybeKey = Annotated[RequestKey | None, Depends(request_key)]


def answer(model: WireModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A noun as JSON."""
    return Response(model.model_dump_json(by_alias=True), status, headers, "application/json")


def answer_warned(model: WireModel, warnings: Iterable[str]) -> Response:
    """A noun as JSON, with what its user should know."""
    return answer_document({**model.to_wire(), "warnings": list(warnings)})


def answer_document(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Plain data as JSON."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")


def answer_page(page: Page[Any], *, bare: bool = False) -> Response:
    """A slice of a list with its three headers; `bare` without the object around it."""
    headers = {"x-total-count": str(page.total), "x-take": str(page.take), "x-skip": str(page.skip)}
    items = ",".join(item.model_dump_json(by_alias=True) for item in page.items)
    body = f"[{items}]"
    if not bare:
        body = f'{{"data":{body},"total":{page.total},"take":{page.take},"skip":{page.skip}}}'
    return Response(body, 200, headers, "application/json")


def has_too_many_values(text: bytes) -> bool:
    """Whether a text of JSON has more values than may be looked at; found in a hundredth of the time of reading it."""
    return _count_marks(text) > MOST_VALUES and _count_marks(_without_texts(text)) > MOST_VALUES


def _parse(body: bytes) -> Any:
    if has_too_many_values(body):
        raise HTTPException(400, f"The body has too many values: {MOST_VALUES} are allowed")
    try:
        document = json.loads(
            body, object_hook=WireObject, parse_constant=_refuse, parse_float=_float, parse_int=_integer
        )
        check_plain(document, levels=_LEVELS)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise HTTPException(400, "The body is nested too deeply") from error
    except ValueError as error:
        raise HTTPException(400, f"The body is no usable JSON: {error}") from error
    return document


def _count_marks(body: bytes) -> int:
    """An upper bound of the values in a text of JSON."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def _without_texts(body: bytes) -> bytes:
    """A text of JSON without what stands between quotation marks."""
    return b"".join(body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of more than {_DIGITS} digits")
    return int(text)
