"""Upload request: a form whose files may be named in every way that clients send names, read when it is welcome."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from influencerai.errors import TooManyError
from influencerai.serve.bodies import StrictRequest
from influencerai.serve.upload_parts import PartsParser, Spool
from influencerai.store.fair_slots import FairSlots

BODIES_PER_TENANT, BODIES_AT_ONCE = 4, 64
"""Bodies that are received or worked on; each has a temporary file of its size."""
BODIES_WAITING = 50
"""Of one tenant: each holds a place among the requests that the server takes."""
WAITING_SECONDS = 120.0
"""For a turn to send a body, then 429."""
SLOW_SECONDS, LEAST_RATE = 60.0, 16 * 1024
"""A body may be waited for so long, and for a second more for each so many bytes that have come; then 408."""
_log = logging.getLogger(__name__)
_FORM = "multipart/form-data"
_EXTENDED_NAME = re.compile(rb"""filename\*\s*=\s*"?([\w!#$&+^`{}~-]*)'[^']*'([^;\s"]+)""", re.IGNORECASE)


class UploadRequest(StrictRequest):
    """A request whose form is read by `_NamedParts`, as fast as its sender should send it at least."""

    spool: Spool

    async def stream(self) -> AsyncGenerator[bytes, None]:
        received, waited, clock = 0, 0.0, asyncio.get_running_loop().time
        async with aclosing(super().stream()) as stream:
            while True:
                begun = clock()
                try:
                    async with asyncio.timeout(SLOW_SECONDS + received / LEAST_RATE - waited):
                        chunk = await anext(stream, None)
                except TimeoutError as error:
                    raise HTTPException(408, "The body did not come in time") from error
                if chunk is None:
                    return
                waited += clock() - begun  # what the server takes for the chunk is not the sender's
                received += len(chunk)
                yield chunk

    async def _get_form(self, **limits: Any) -> FormData:
        if self._form is not None:
            return self._form
        if not self.headers.get("content-type", "").lower().startswith(_FORM):
            self._form = FormData()  # any other body would be read into memory
            return self._form
        try:
            async with aclosing(self.stream()) as stream:
                self._form = await _NamedParts(self.headers, stream, spool=self.spool, **limits).parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from error
        except OSError as error:
            raise _no_room(error) from error
        return self._form


class _NamedParts(PartsParser):
    """Reads `filename*`, which Starlette does not: some clients send a file's name in no other way."""

    def on_headers_finished(self) -> None:
        self._current_part.content_disposition = _with_plain_name(self._current_part.content_disposition)
        super().on_headers_finished()


def upload_route(limit: Callable[[Request], Awaitable[int]]) -> type[APIRoute]:
    """A class of routes that read bodies by `UploadRequest`, of as many bytes as `limit` finds before; it may raise.

    A tenant sends a few bodies at once; the others wait, unread, until one of these is answered.
    """
    slots = FairSlots(slots=BODIES_AT_ONCE, each=BODIES_PER_TENANT, waiting=BODIES_WAITING)

    class UploadRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                max_bytes = await limit(request)
                async with AsyncExitStack() as stack:
                    try:
                        async with asyncio.timeout(WAITING_SECONDS):
                            await stack.enter_async_context(slots.slot())
                    except TimeoutError as error:
                        raise TooManyError(
                            f"Uploads of this tenant have waited for {WAITING_SECONDS:g} s while others came",
                            retry_after=10,
                            remedy=f"Send at most {BODIES_PER_TENANT} at once.",
                        ) from error
                    upload = UploadRequest(request.scope, request.receive)
                    upload.max_bytes = max_bytes
                    try:
                        upload.spool = Spool()
                    except OSError as error:
                        raise _no_room(error) from error
                    stack.callback(upload.spool.close)
                    return await handler(upload)

            return handle

    return UploadRoute


def _no_room(error: OSError) -> HTTPException:
    _log.error("The upload cannot be kept in the folder for temporary files (TMPDIR): %s", error)
    return HTTPException(500, "The server has no room for the upload")


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
