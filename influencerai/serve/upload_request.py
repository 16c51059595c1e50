"""Upload request: a form whose files may be named in every way that clients send names, read when it is welcome."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from influencerai.serve.bodies import StrictRequest

_FORM = "multipart/form-data"
_EXTENDED_NAME = re.compile(rb"""filename\*\s*=\s*"?([\w!#$&+^`{}~-]*)'[^']*'([^;\s"]+)""", re.IGNORECASE)


class UploadRequest(StrictRequest):
    """A request whose form is read by `_NamedParts`."""

    async def _get_form(self, **limits: Any) -> FormData:
        if self._form is None and self.headers.get("content-type", "").lower().startswith(_FORM):
            try:
                async with aclosing(self.stream()) as stream:
                    self._form = await _NamedParts(self.headers, stream, **limits).parse()
            except MultiPartException as error:
                raise HTTPException(400, error.message) from error
        return await super()._get_form(**limits)


class _NamedParts(MultiPartParser):
    """Starlette's parser, which reads no `filename*`: some clients send a file's name in no other way."""

    def on_headers_finished(self) -> None:
        self._current_part.content_disposition = _with_plain_name(self._current_part.content_disposition)
        super().on_headers_finished()


def upload_route(limit: Callable[[Request], Awaitable[int]]) -> type[APIRoute]:
    """A class of routes that read bodies by `UploadRequest`, of as many bytes as `limit` finds before; it may raise."""

    class UploadRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                max_bytes = await limit(request)
                upload = UploadRequest(request.scope, request.receive)
                upload.max_bytes = max_bytes
                return await handler(upload)

            return handle

    return UploadRoute


def _with_plain_name(disposition: bytes | None) -> bytes | None:
    """The header with the name of its `filename*` (RFC 5987) as its last `filename`, which is the one that counts."""
    found = _EXTENDED_NAME.search(disposition or b"")
    if disposition is None or found is None:
        return disposition
    try:
        name = unquote_to_bytes(found[2]).decode(found[1].decode() or "utf-8")
    except (LookupError, UnicodeError):
        return disposition
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return disposition + f'; filename="{quoted}"'.encode()
