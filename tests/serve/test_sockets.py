"""What only a real socket shows: bodies that are cut off, clients that leave, answers to what is no request."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from influencerai.serve.local_server import LocalServer
from influencerai.service import Service
from influencerai.settings import Settings
from tests.serve.sockets import Served, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(root=tmp_path_factory.mktemp("root"), max_body_kib=64, max_upload_mib=1)
    with served(settings) as running:
        yield running


def exchange(server: Served, data: bytes, *, shut: bool = False) -> bytes:
    """Send bytes as they are, and read what comes until the server closes or says nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as opened:
        try:
            opened.sendall(data)
            if shut:
                opened.shutdown(socket.SHUT_WR)
            opened.settimeout(2)
            received = b""
            while chunk := opened.recv(65536):
                received += chunk
                if b"\r\n\r\n" in received and b"}" in received:
                    break
        except (TimeoutError, ConnectionError):
            pass
    return received


def request(method: str, path: str, *, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: server", "X-Tenant-Id: ann", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def count(server: Served) -> bytes:
    answer = exchange(server, request("GET", "/datasets", Connection="close"))
    return next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"x-total-count"))


GOOD = b'{"kind": "lora-training", "path": "data/x"}'


def test_bodies_that_are_cut_off_make_nothing(server: Served) -> None:
    before = count(server)
    for body in (GOOD[:-1], GOOD, b""):
        exchange(server, request("POST", "/datasets", body=body, length=len(GOOD) + 10), shut=True)
    chunked = b"2b\r\n" + GOOD + b"\r\n"  # and no last chunk
    exchange(server, request("POST", "/datasets", body=chunked, Transfer_Encoding="chunked"), shut=True)
    upload = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'
    exchange(server, request("POST", "/datasets/x/images", body=upload, length=10**5), shut=True)
    assert count(server) == before
    assert b"HTTP/1.1 201" in exchange(server, request("POST", "/datasets", body=GOOD, Connection="close"))


def test_a_body_that_is_too_large_is_not_waited_for(server: Served) -> None:
    begun = time.perf_counter()
    answer = exchange(server, request("POST", "/datasets", body=b"{", length=10**12))
    assert b"HTTP/1.1 413" in answer
    assert b'"statusCode": 413' in answer
    assert time.perf_counter() - begun < 5
    endless = b"10000\r\n" + b" " * 65536 + b"\r\n" + b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert b"HTTP/1.1 413" in exchange(server, request("POST", "/datasets", body=endless, Transfer_Encoding="chunked"))


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /datasets HTTP/1.1\r\nX-Tenant-Id: a\0b\r\nHost: x\r\n\r\n",
        b"GET /datasets HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /datasets HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_request_hurts_nobody(server: Served, data: bytes) -> None:
    answer = exchange(server, data)
    assert b"HTTP/1.1 2" not in answer
    assert b"HTTP/1.1 200" in exchange(server, request("GET", "/datasets", Connection="close"))


def test_methods_and_heads(server: Served) -> None:
    for method in ("TRACE", "PUT"):
        assert b"HTTP/1.1 405" in exchange(server, request(method, "/datasets", Connection="close"))
    answer = exchange(server, request("HEAD", "/datasets", Connection="close"))
    assert answer.endswith(b"\r\n\r\n")


def test_a_server_that_cannot_start_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(root=tmp_path, database_url=f"sqlite:///{tmp_path / 'file' / 'data.db'}")
    server = LocalServer(Service(settings, needs_worker=False), host="127.0.0.1", port=0)
    with pytest.raises(SystemExit):
        server.run()
    assert not server.started
