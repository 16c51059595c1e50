"""Connections: HTTP over a socket, bounded in the size of its head, in time and in number."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from influencerai.serve.errors import plain_body

_RESERVED_FILES = 256
"""Descriptors that connections leave to databases, uploads and trainings."""
_MOST_FILES = 65_536
_MOST_CONNECTIONS = 4096
BACKLOG = 100
"""Connections that are accepted at once, before any of them is counted."""
_INVALID = "This is no valid HTTP request"


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Bounds of every connection, and of all together."""

    url_bytes: int = 16 * 1024
    head_bytes: int = 64 * 1024
    header_lines: int = 100
    head_seconds: float = 10.0
    """From the first byte, or the connection's beginning, to the end of the headers."""
    least_body_rate: float = 240.0
    """Bytes per second of a body while the server reads it."""
    rate_seconds: float = 10.0
    """Over which the rate is measured."""
    drain_bytes: int = 16 * 2**20
    """Of a body that was refused: read and dropped, so that its sender can read the answer."""
    drain_seconds: float = 5.0
    stalled_seconds: float = 60.0
    """A reader who takes nothing of an answer for so long is gone."""
    connections: int = _MOST_CONNECTIONS
    per_peer: int = _MOST_CONNECTIONS // 2
    """Of one address, so that no client has all."""

    @classmethod
    def of_process(cls) -> ConnectionLimits:
        """Bounds below this process's limit of open files, which is raised first."""
        files = raise_file_limit()
        connections = max(16, min(_MOST_CONNECTIONS, files - _RESERVED_FILES))
        return cls(connections=connections, per_peer=connections // 2)


def raise_file_limit() -> int:
    """Raise the soft limit of open files as far as the hard one allows; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


def connection_class(limits: ConnectionLimits) -> type[Connection]:
    """The protocol for uvicorn's `http`, with these bounds."""
    return type("BoundedConnection", (Connection,), {"limits": limits})


_peers: WeakKeyDictionary[ServerState, Counter[str]] = WeakKeyDictionary()
"""Connections of each server by the other end's address."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with bounds; what is no request is answered in the one shape of errors."""

    limits = ConnectionLimits()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._peer = ""
        self._awaits_head = True
        self._awaits_body = False
        self._head_bytes = self._url_bytes = self._body_bytes = self._dropped_bytes = 0
        self._since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str] | None = None
        self._is_refused = self._is_counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        address = transport.get_extra_info("peername")
        self._peer = str(address[0]) if isinstance(address, tuple) else ""
        peers = _peers.setdefault(self.server_state, Counter())
        peers[self._peer] += 1
        self._is_counted = True
        self._start_timer(self.limits.head_seconds, self._refuse_late_head)
        if peers[self._peer] > self.limits.per_peer:
            self._make_room([self._peer])
        elif len(self.connections) > self.limits.connections:
            self._make_room([peer for peer, _ in peers.most_common()])

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._stop_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self._is_draining:
            self._drop(data)
            if self._is_refused or self.transport.is_closing():
                return
        if self._awaits_head and self._timer is None:
            self._start_timer(self.limits.head_seconds, self._refuse_late_head)
        was_awaited = self._awaits_head
        self._body_bytes += len(data)
        super().data_received(data)
        if was_awaited and self._awaits_head and not self._is_refused:
            self._head_bytes += len(data)
            if (
                self._head_bytes > self.limits.head_bytes
            ):  # one header that goes on and on is never given to `on_header`
                self._refuse(431, "The headers are too large", seconds=self.limits.drain_seconds)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._url_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url_bytes += len(url)
        if self._url_bytes > self.limits.url_bytes:
            self._refuse_while_parsing(414, "The address is too long")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if len(self.headers) >= self.limits.header_lines:
            self._refuse_while_parsing(431, "There are too many headers")
        if self._head_bytes > self.limits.head_bytes:
            self._refuse_while_parsing(431, "The headers are too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._awaits_head, self._awaits_body = False, True
        self._head_bytes = self._body_bytes = self._dropped_bytes = 0
        self._start_timer(self.limits.rate_seconds, self._check_rate)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._awaits_body = False
        self._stop_timer()
        super().on_message_complete()
        if self.cycle.response_complete:
            self._await_head()
            # uvicorn's own timer for idle connections ended with the last byte of the body.
            self._start_timer(self.limits.head_seconds, self.transport.close)

    def on_response_complete(self) -> None:
        if self._is_draining:
            self._start_timer(self.limits.drain_seconds, self.transport.close)
        elif not self.pipeline:
            self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.stalled_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed; uvicorn calls this for every error of the parser."""
        status, text = self._refusal or (400, _INVALID)
        self._refuse(status, text, seconds=self.limits.drain_seconds)

    @property
    def _is_draining(self) -> bool:
        """Whether the request was answered before its body had come."""
        return self._awaits_body and self.cycle is not None and self.cycle.response_complete

    def _leave(self) -> None:
        """Count no more: the descriptor is given back at the end of this round of the event loop."""
        if self._is_counted:
            self._is_counted = False
            self.connections.discard(self)
            peers = _peers[self.server_state]
            peers[self._peer] -= 1
            if not peers[self._peer]:
                del peers[self._peer]

    def _await_head(self) -> None:
        self._awaits_head, self._since = True, self.loop.time()

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > self.limits.drain_bytes:
            self.transport.abort()

    def _refuse_while_parsing(self, status: int, text: str) -> None:
        self._refusal = (status, text)
        raise ValueError(text)  # which ends the parser, then `send_400_response` answers

    def _refuse(self, status: int, text: str, *, seconds: float = 0.0) -> None:
        """Answer, drop what still comes for so many seconds, and close."""
        if self._is_refused or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # in the middle of another answer
            return
        self._is_refused, self._dropped_bytes = True, 0
        body = json.dumps(plain_body(status, text)).encode()
        fields = [*self.server_state.default_headers, (b"content-type", b"application/json")]
        fields += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
        if not seconds:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._start_timer(seconds, self.transport.close)

    def _refuse_late_head(self) -> None:
        self._timer = None
        if not self._body_bytes:
            self.transport.close()
        elif self._awaits_head:
            self._refuse(408, "The headers did not come in time")

    def _check_rate(self) -> None:
        self._timer = None
        if not self._awaits_body or self._is_draining:
            return
        least = self.limits.least_body_rate * self.limits.rate_seconds
        is_wanted = not self.flow.read_paused and not self.cycle.waiting_for_100_continue
        if self._body_bytes < least and is_wanted:
            self.transport.abort()
            return
        self._body_bytes = 0
        self._start_timer(self.limits.rate_seconds, self._check_rate)

    def _make_room(self, peers: list[str]) -> None:
        """Close the connection that has waited longest for a request, of the first of `peers` that has one."""
        for peer in peers:
            waiting = [
                other
                for other in self.connections
                if isinstance(other, Connection) and other is not self and other._peer == peer and other._awaits_head
            ]
            if waiting:
                oldest = min(waiting, key=lambda other: other._since)
                oldest._leave()
                oldest.transport.abort()
                return
        self._refuse(503, "There are too many connections")

    def _start_timer(self, seconds: float, act: Any) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, act)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
