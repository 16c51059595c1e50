"""A hub on the loopback interface that serves the folders `<root>/<org>/<name>`."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def hub_server(root: Path) -> Iterator[str]:
    """Serve until the block ends; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_HubHandler, root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _HubHandler(BaseHTTPRequestHandler):
    commit = "1" * 40

    def __init__(self, root: Path, *args: Any) -> None:
        self.root = root
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if not path.startswith("api/models/") and "/resolve/" not in path:
            self._send(404, b"", {})
            return
        if not path.startswith("api/models/"):
            org, name, _, _, file = path.split("/", 4)
            data = (self.root / org / name / file).read_bytes()
            tag = hashlib.sha256(data).hexdigest()
            self._send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": self.commit})
            return
        name = "/".join(path.split("/")[2:4])
        folder = self.root / name
        if not folder.is_dir():
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in path:
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            tree = [
                {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": "0"}
                for path in files
            ]
            self._send(200, json.dumps(tree).encode(), {})
        else:
            self._send(200, json.dumps({"id": name, "sha": self.commit, "siblings": []}).encode(), {})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Silent."""
