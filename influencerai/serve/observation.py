"""Observation: every request gets an id, a line in the log, and its place in the metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from influencerai.serve.errors import UNEXPECTED, plain_error
from influencerai.serve.metrics import Figures

REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_JOB_PATH = re.compile(r"/jobs/([0-9a-f-]{36})(?:/|$)")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other word would be a series of its own."""
_log = logging.getLogger("influencerai.requests")


class Observation:
    """ASGI middleware, the outermost: nothing leaves without an id, and no error without an answer."""

    def __init__(self, app: ASGIApp, *, figures: Figures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        begun, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, **_job_of(scope["path"])):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("The request failed on an unexpected error.")
                if not status:
                    await plain_error(500, UNEXPECTED)(scope, receive, send_with_id)
            finally:
                self._note(scope, status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._figures.note(method=method, route=route, status=status, seconds=seconds)
        principal = scope.get("state", {}).get("principal")
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
        }
        if principal is not None:
            fields["tenant"] = principal.tenant
        _log.info("request", extra=fields)


def _job_of(path: str) -> dict[str, str]:
    found = _JOB_PATH.match(path)
    return {"job_id": found[1]} if found else {}
