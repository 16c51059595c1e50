"""A proxy between client and server for tests: it cuts connections, loses answers, and keeps what was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes bytes on, to whatever server is there now; with none, every connection is cut at once."""

    def __init__(self, upstream: int | None) -> None:
        self.upstream = upstream
        self.cuts: list[int] = []
        """Bytes of answers after which the next connections are cut, one number per connection."""
        self.asked = bytearray()
        """All that clients have sent."""
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def requests(self, line: bytes) -> int:
        """How many requests began with this."""
        return bytes(self.asked).count(line)

    def cut(self) -> None:
        """Cut every connection that is open."""
        for side in list(self._open):
            _end(side)

    def close(self) -> None:
        self.upstream = None
        _end(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        limit = self.cuts.pop(0) if self.cuts else None
        with client, suppress(OSError):
            if self.upstream is None:
                return
            with socket.create_connection(("127.0.0.1", self.upstream)) as server:
                self._open |= {client, server}
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                try:
                    while answer := server.recv(65536):
                        client.sendall(answer if limit is None else answer[:limit])
                        if limit is not None and (limit := limit - len(answer)) <= 0:
                            break
                finally:  # closing alone would tell the client nothing while `_ask` waits for its bytes
                    self._open -= {client, server}
                    _end(client)
                    _end(server)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while request := client.recv(65536):
                self.asked += request
                server.sendall(request)
            server.shutdown(socket.SHUT_WR)


def _end(side: socket.socket) -> None:
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        side.close()


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy to the server on a port until the end of the block."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
