"""Ray Serve's proxy: the bounds of our own server in its process, and one request id in each answer."""

from __future__ import annotations

import os

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import config

from influencerai.serve.connections import Connection, ConnectionLimits
from influencerai.serve.observation import REQUEST_ID, REQUEST_ID_HEADER
from influencerai.serve.ray_bodies import bound_proxy


class ProxyConnection(Connection):
    """uvicorn's protocol in the proxy, with bounds below the process's limit of open files."""

    limits = ConnectionLimits.of_process()


class OneRequestId:
    """ASGI middleware around Serve's own, which appends an id to that of the app, and passes any text on as one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER)
        if given is not None and not REQUEST_ID.fullmatch(given):
            del MutableHeaders(scope=scope)[REQUEST_ID_HEADER]

        async def send_one(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if ids := headers.getlist(REQUEST_ID_HEADER):
                    headers[REQUEST_ID_HEADER] = ids[0]
            await send(message)

        await self._app(scope, receive, send_one)


def bounded() -> list[Middleware]:
    """Called by Serve in the process of a proxy, before it listens, where the environment names it."""
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # whose X-Forwarded-For counts, the app decides by its settings
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{ProxyConnection.__name__}"
    bound_proxy()
    return [Middleware(OneRequestId)]
