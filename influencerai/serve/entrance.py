"""Entrance: people who open the server's address in a browser are led to the page of the API."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from influencerai.serve.openapi import DOCUMENT_PATH, PAGE_PATH

_PAGES = ("/", "/docs", "/redoc", "/swagger")
"""Where people look for the API's page."""
_DOCUMENT = "/openapi.json"
"""Where programs look for its document."""


class Entrance:
    """ASGI middleware: redirects what asks for a page of HTML, and the usual address of the document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = _target(scope) if scope["type"] == "http" else None
        if target is None:
            await self._app(scope, receive, send)
        else:
            base = scope.get("root_path", "").rstrip("/")
            await RedirectResponse(base + target)(scope, receive, send)


def _target(scope: Scope) -> str | None:
    if scope["method"] not in ("GET", "HEAD"):
        return None
    if scope["path"] == _DOCUMENT:
        return DOCUMENT_PATH
    if scope["path"] in _PAGES and "text/html" in Headers(scope=scope).get("accept", ""):
        return PAGE_PATH
    return None
