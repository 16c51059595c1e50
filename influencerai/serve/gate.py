"""Gate: every request passes here before its route is looked for; who sends it, and whether it is one too many."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from influencerai.errors import InfluencerAIError, TooManyError
from influencerai.serve.admission import Admission
from influencerai.serve.authentication import Authentication
from influencerai.serve.errors import SENTENCES, error_response, plain_error
from influencerai.serve.principal import Principal
from influencerai.serve.rate_limits import RateLimits
from influencerai.service import Service
from influencerai.store.fair_slots import acting_for

OPEN_PATHS = ("/healthz",)
READY_PATH = "/readyz"
"""Open too; a credential that comes with it must be right, and is shown more."""
METRICS_PATH = "/metrics"
ADMIN_PATH = "/admin"


class Gate:
    """ASGI middleware: puts the principal into the request's state, or answers 401 or 429 itself."""

    def __init__(self, app: ASGIApp, *, authentication: Authentication, service: Service) -> None:
        settings = service.settings
        self._app = app
        self._authentication = authentication
        self._admission = Admission()
        self._limits = RateLimits(settings, service.store) if settings.limits_requests else None
        self._is_development = settings.auth == "development"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        if scope["path"] == READY_PATH and (self._is_development or not _has_credential(scope)):
            await self._app(scope, receive, send)
            return
        peer = (scope.get("client") or ("",))[0]
        try:
            with acting_for(f"@{peer}"):  # which no tenant is called
                principal = await self._authentication.principal(
                    Headers(scope=scope), peer=peer, needs_tenant=not _is_operation(scope["path"])
                )
            if not _is_operation(scope["path"]):
                principal.require("records")  # keys for metrics or administration open no other route
        except InfluencerAIError as error:
            await error_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        if "\0" in scope["path"]:  # which no id can hold, and not every database takes
            await plain_error(404, SENTENCES[404])(scope, receive, send)
            return
        with acting_for(principal.tenant or principal.actor):
            try:
                async with self._admission.slot():
                    await self._pass(principal, scope, receive, send)
            except TooManyError as error:
                await error_response(error)(scope, receive, send)

    async def _pass(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        if self._limits is None or not principal.is_limited:
            await self._app(scope, receive, send)
            return
        allowance = await self._limits.take(principal.tenant, scope["method"], scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowance.headers)
            await send(message)

        if allowance.is_exceeded:
            refusal = TooManyError("Too many requests in this minute", retry_after=allowance.retry_after)
            await error_response(refusal)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        return (
            scope["method"] == "OPTIONS"
            or path in OPEN_PATHS
            or path == "/api"
            or path.startswith("/api/")
            or (path == METRICS_PATH and self._is_development)
        )


def _has_credential(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "authorization" in headers or "x-api-key" in headers


def _is_operation(path: str) -> bool:
    """Whether the path is about the server and all tenants, not about one."""
    return path in (READY_PATH, METRICS_PATH, ADMIN_PATH) or path.startswith(f"{ADMIN_PATH}/")
