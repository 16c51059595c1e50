"""The API in this process, by uvicorn: for development, notebooks and tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from influencerai.serve.app import create_app
from influencerai.serve.connections import BACKLOG, ConnectionLimits, connection_class
from influencerai.service import Service

_GRACE_SECONDS = 10


class LocalServer(uvicorn.Server):
    """uvicorn's server, which ends event streams before it waits for connections to close."""

    def __init__(self, service: Service, *, host: str, port: int, limits: ConnectionLimits | None = None) -> None:
        config = uvicorn.Config(
            create_app(service),
            host=host,
            port=port,
            http=connection_class(limits or ConnectionLimits.of_process()),
            ws="none",
            proxy_headers=False,  # the app does so, by its settings
            backlog=BACKLOG,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            server_header=False,
            date_header=True,
        )
        super().__init__(config)
        self._service = service

    def stop(self) -> None:
        """Begin to end."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to who runs the server: uvicorn would raise them again when it has ended."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then wait for the other requests."""
        await self._service.event_streams.close()
        await super().shutdown(sockets)
