"""Connection: requests to one server as one tenant, tried again where that is safe."""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2

from influencerai.client.answers import document_of, error_of, items_of, noun_of, retry_after, total_of
from influencerai.client.listing import AsyncListing
from influencerai.client.transport import Transport
from influencerai.domain.page import Page
from influencerai.domain.plain_values import plain
from influencerai.domain.wire import WireModel
from influencerai.errors import UnreachableError, ValidationError

Noun = TypeVar("Noun", bound=WireModel)
DEFAULT_TIMEOUT = 30.0
"""Seconds that a request may wait for the server at any point."""
LONGEST_WAIT = 120.0
"""Seconds that a server may ask for until the next try; for more, its refusal is raised."""
_FIRST_PAUSE = 0.2
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_OUTAGES = frozenset({502, 503, 504})
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Files and fields of a form."""

    files: Sequence[tuple[str, BinaryIO]]
    fields: Mapping[str, str]


class Connection:
    """Sends the requests of every resource.

    Args:
        transport: sends and reads.
        base_url: without a slash at its end.
        retries: tries after the first one.
        on_warning: called with warnings in an answer; by default, they are Python warnings.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str,
        retries: int,
        on_warning: Callable[[str], object] | None,
    ) -> None:
        self.transport = transport
        self.retries = retries
        self._base_url = base_url
        self._on_warning = on_warning

    # Nouns

    async def get(self, model: type[Noun], path: str, **params: Any) -> Noun:
        """One noun."""
        response = await self.request("GET", path, params=params)
        return noun_of(model, document_of(response), response)

    async def post(
        self,
        model: type[Noun],
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        is_repeatable: bool = False,
    ) -> Noun:
        """What is made, or done where `is_repeatable`, which a second time changes nothing more.

        Of what is made, a key tells the server that a second try is the same request: `key`, or one of its own.
        """
        headers = None if is_repeatable else {"idempotency-key": key or uuid4().hex}
        response = await self.request("POST", path, body=body, headers=headers, is_repeatable=True)
        return self._changed(model, response)

    async def patch(self, model: type[Noun], path: str, body: Mapping[str, Any]) -> Noun:
        """The noun as it is after a change."""
        return self._changed(model, await self.request("PATCH", path, body=body))

    async def delete(self, path: str) -> None:
        """Delete; what an earlier try has deleted, of which the answer was lost, is not missing."""
        response = await self.request("DELETE", path)
        if response.is_success:
            self._warn(document_of(response))

    def list(
        self, model: type[Noun], path: str, *, key: str = "id", page_size: int, **params: Any
    ) -> AsyncListing[Noun]:
        """All nouns of a list; `key` is the field that identifies one."""

        async def fetch(skip: int, take: int) -> Page[Noun]:
            response = await self.request("GET", path, params={**params, "skip": skip, "take": take})
            items = tuple(noun_of(model, item, response) for item in items_of(response))
            return Page(items=items, total=total_of(response), take=take, skip=skip)

        return AsyncListing(fetch, key=lambda item: str(getattr(item, key)), page_size=page_size)

    async def items(self, model: type[Noun], path: str, **params: Any) -> tuple[Noun, ...]:
        """The nouns under `data`."""
        response = await self.request("GET", path, params=params)
        return tuple(noun_of(model, item, response) for item in items_of(response))

    async def document(self, path: str, **params: Any) -> dict[str, Any]:
        """An answer that is no noun."""
        found: dict[str, Any] = document_of(await self.request("GET", path, params=params))
        return found

    # Requests

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        form: Upload | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        is_repeatable: bool = False,
        stream: bool = False,
        retries: int | None = None,
        accepted: int | None = None,
    ) -> httpx2.Response:
        """The answer, where it is a success or has the status `accepted`.

        Tried again, `retries` times at most: what never left this machine, what the server refuses for now (429,
        Retry-After), and where a second time does no harm also what may have arrived and what an outage ate.

        Raises:
            UnreachableError: there is no answer.
            InfluencerAIError: the server's refusal, as its own class.
        """
        is_repeatable = is_repeatable or method in _REPEATABLE
        tries = self.retries if retries is None else retries
        may_have_arrived = False
        for number in range(tries + 1):
            pause = _FIRST_PAUSE * 2**number
            request = self._build(method, path, params, body, form, headers, timeout)
            try:
                response = await self.transport.send(request, stream=stream)
                if response.is_success or response.status_code == accepted:
                    return response
                if stream:
                    await self._read(response)
            except httpx2.RequestError as error:
                never_sent = isinstance(error, _NEVER_SENT)
                if number == tries or not (is_repeatable or never_sent):
                    raise self.unreachable(error) from error
                may_have_arrived |= not never_sent
            else:
                if method == "DELETE" and may_have_arrived and response.status_code == 404:
                    return response
                asked = self._pause(response, pause, is_repeatable=is_repeatable)
                if number == tries or asked is None:
                    raise error_of(response)
                may_have_arrived |= response.status_code in _OUTAGES
                pause = asked
            await self.transport.sleep(pause)
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def open(self, path: str, **options: Any) -> AsyncIterator[httpx2.Response]:
        """The answer to a GET before its body is read; raises as `request`."""
        response = await self.request("GET", path, stream=True, **options)
        try:
            yield response
        finally:
            await self.transport.close_response(response)

    def unreachable(self, error: Exception) -> UnreachableError:
        """That there is no answer, in words."""
        if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
            return UnreachableError(f"The server at {self._base_url} did not answer in time.")
        return UnreachableError(
            f"The server at {self._base_url} cannot be reached: {str(error) or type(error).__name__}.",
            remedy="Start one with `influencerai serve`, or name the address of another.",
        )

    def _build(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Any,
        form: Upload | None,
        headers: Mapping[str, str] | None,
        timeout: httpx2.Timeout | None,
    ) -> httpx2.Request:
        options: dict[str, Any] = {} if headers is None else {"headers": headers}
        if params and (given := {name: value for name, value in params.items() if value is not None}):
            options["params"] = given
        if timeout is not None:
            options["timeout"] = timeout
        if form is not None:
            options |= {"data": form.fields, "files": [("files", file) for file in form.files]}
        elif body is not None:
            options["json"] = plain(body)
        return self.transport.build(method, self._base_url + path, **options)

    async def _read(self, response: httpx2.Response) -> None:
        try:
            await self.transport.read(response)
        finally:
            await self.transport.close_response(response)

    @staticmethod
    def _pause(response: httpx2.Response, pause: float, *, is_repeatable: bool) -> float | None:
        """Seconds until the next try, or None where there should be none."""
        status = response.status_code
        if status != 429 and not (status in _OUTAGES and is_repeatable):
            return None
        asked = retry_after(response)
        if asked is None:
            return pause
        return None if asked > LONGEST_WAIT else asked

    def _changed(self, model: type[Noun], response: httpx2.Response) -> Noun:
        document = document_of(response)
        if "warnings" not in model.model_fields:
            self._warn(document)
        return noun_of(model, document, response)

    def _warn(self, document: Any) -> None:
        for text in document.pop("warnings", ()) if isinstance(document, dict) else ():
            if self._on_warning is not None:
                self._on_warning(text)
            else:
                warnings.warn(text, UserWarning, stacklevel=_calls_until_the_user())


def _calls_until_the_user() -> int:
    """The number of calls between a warning and the line it is about."""
    frame, calls = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("influencerai.client"):
        frame, calls = frame.f_back, calls + 1
    return calls


def segment(id: str) -> str:
    """An id as one part of a path.

    Raises:
        ValidationError: it could lead elsewhere.
    """
    if not id or not id.strip("."):
        raise ValidationError(f"{id!r} is no id.")
    return quote(id, safe="")
