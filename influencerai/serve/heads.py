"""HEAD: each route that can be read answers what GET would, without the body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(Exception):  # noqa: N818  # no error
    """The headers are sent: nothing of the body needs to be read or made."""


class HeadRequests:
    """ASGI middleware: asks the route by GET, and ends it when its headers are there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["method"] = "HEAD"
                await send(message)
                raise _Answered

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_headers)
        except* _Answered:
            await send({"type": "http.response.body", "body": b""})
        finally:
            scope["method"] = "HEAD"
