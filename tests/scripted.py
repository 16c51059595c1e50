"""A server that answers as it was told to, whatever it is asked; and the answers about a job."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Reply = tuple[int, dict[str, str], bytes]
"""A status, headers, and a body."""


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers each request with the next of `script`."""

    script: list[Reply]
    asked: list[str]
    meanwhile: Callable[[str], object]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.asked.append(f"{self.command} {self.path}")
        status, headers, body = self.script.pop(0)
        self.meanwhile(self.path)
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    do_DELETE = do_PATCH = do_GET  # noqa: N815 - as its base class calls them

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(*script: Reply, meanwhile: Callable[[str], object] = lambda path: None) -> Iterator[tuple[str, list[str]]]:
    """The address of such a server, and what it is asked; `meanwhile` is called with a path before it answers."""
    asked: list[str] = []
    members = {"script": list(script), "asked": asked, "meanwhile": staticmethod(meanwhile)}
    handler = type("Handler", (Scripted,), members)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def told(*events: dict[str, Any]) -> Reply:
    return sent({"data": events, "lastSeq": len(events)})


def sent(document: dict[str, Any]) -> Reply:
    return 200, {}, json.dumps(document).encode()


_TIME = "2026-01-01T00:00:00.000Z"
JOB: dict[str, Any] = {
    "id": "j",
    "tenantId": "tenant_demo",
    "type": "lora-training",
    "status": "running",
    "payload": {},
    "training": None,
    "result": None,
    "createdAt": _TIME,
    "updatedAt": _TIME,
}
ENDED = {**JOB, "status": "completed", "result": {"loraPath": "a"}}
PROGRESS = {"seq": 1, "type": "progress", "data": {"currentEpoch": 1, "totalEpochs": 9}, "createdAt": _TIME}
END = {"seq": 2, "type": "status", "data": {"status": "completed"}, "createdAt": _TIME}
