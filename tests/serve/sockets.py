"""The API behind a real socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from influencerai.serve.connections import ConnectionLimits
from influencerai.serve.local_server import LocalServer
from influencerai.service import Service
from influencerai.settings import Settings


@dataclass(kw_only=True)
class Served:
    """A running server."""

    server: LocalServer
    service: Service
    thread: threading.Thread
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> float:
        """Ask the server to end; the seconds that it took."""
        begun = time.perf_counter()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()
        return time.perf_counter() - begun


@contextmanager
def served(settings: Settings, *, limits: ConnectionLimits | None = None) -> Iterator[Served]:
    """A server until the end of the block."""
    service = Service(settings, needs_worker=False)
    server = LocalServer(service, host="127.0.0.1", port=0, limits=limits)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(server=server, service=service, thread=thread, port=port)
    finally:
        server.should_exit = True
        thread.join(20)
