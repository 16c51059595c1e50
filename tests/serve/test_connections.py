"""Connections that nobody should hold: their heads, their time and their number are bounded."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from influencerai.serve.connections import ConnectionLimits
from influencerai.settings import Settings
from tests.serve.sockets import Served, served
from tests.serve.test_sockets import request

LIMITS = ConnectionLimits(
    head_seconds=0.5, rate_seconds=0.5, drain_seconds=0.5, drain_bytes=4 * 2**20, connections=20, per_peer=12
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(root=tmp_path_factory.mktemp("root"), max_body_kib=64)
    with served(settings, limits=LIMITS) as running:
        yield running


def opened(server: Served, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5, source_address=(source, 0))


def answer_to(server: Served, *parts: bytes) -> tuple[int, dict[str, object]]:
    """Status and body of what is answered to bytes, which are sent until the server takes no more."""
    with opened(server) as connection:
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        received = b""
        with suppress(ConnectionError, TimeoutError):
            while chunk := connection.recv(65536):
                received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def is_answered(server: Served, source: str = "127.0.0.1") -> bool:
    with opened(server, source) as connection:
        connection.sendall(request("GET", "/healthz", Connection="close"))
        with suppress(ConnectionError):
            return b" 200 " in connection.recv(100)
    return False


START = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([START, b"".join(b"x%d: a\r\n" % number for number in range(200)), b"\r\n"], 431),
        ([START, *[b"".join(b"x%d: a\r\n" % number for number in range(90_000))] * 5, b"\r\n"], 431),
        ([START, b"a: " + b"x" * 70_000, b"\r\n\r\n"], 431),
        ([START, b"a: ", *[b"x" * 100_000] * 100, b"\r\n\r\n"], 431),
        ([START, b"a" * 70_000, b": x\r\n\r\n"], 431),
        ([b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"], 414),
        ([b"hello\r\n\r\n"], 400),
        ([b"GET / HTTP/1.1\r\nhost: x\r\nContent-Length: -1\r\n\r\n"], 400),
    ],
    ids=["lines", "many lines", "a large one", "a very large one", "a long name", "address", "no HTTP", "length"],
)
def test_a_head_that_cannot_be_taken_is_refused(server: Served, parts: list[bytes], status: int) -> None:
    begun = time.process_time()
    found, body = answer_to(server, *parts)
    assert (found, body["statusCode"]) == (status, status)
    assert body["message"]
    code = {400: "bad_request", 414: "address_too_long", 431: "headers_too_large"}[status]
    assert (body["code"], bool(body["remedy"])) == (code, True)
    assert time.process_time() - begun < 1
    assert is_answered(server)


def test_heads_within_the_bounds_are_taken(server: Served) -> None:
    lines = b"".join(b"x%d: %s\r\n" % (number, b"a" * 600) for number in range(90))
    with opened(server) as connection:
        for _ in range(3):  # counted anew for each request of a connection
            connection.sendall(START + lines + b"\r\n")
            received = b""
            while b"}" not in received:
                received += connection.recv(4096)
            assert b" 200 " in received


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nx-a: ", request("GET", "/healthz")])
def test_a_head_has_a_deadline(server: Served, begin: bytes) -> None:
    """However it begins, also after a request of the same connection, and also for who sends a byte now and then."""
    with opened(server) as connection:
        begun = time.monotonic()
        connection.sendall(begin)
        with suppress(ConnectionError):
            while time.monotonic() - begun < 4:
                connection.settimeout(0.1)
                with suppress(TimeoutError):
                    if not connection.recv(1000):
                        break
                if begin:
                    connection.sendall(b"\r\n" if begin.endswith(b"\r\n\r\n") else b"a")
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("tenant", [b"x-tenant-id: ann\r\n", b""], ids=["known", "stranger"])
def test_a_body_must_come(server: Served, tenant: bytes) -> None:
    head = (
        b"POST /datasets HTTP/1.1\r\nhost: x\r\n"
        + tenant
        + b"content-type: application/json\r\ncontent-length: 999\r\n"
    )
    with opened(server) as connection:
        begun = time.monotonic()
        connection.sendall(head + b"\r\n")
        connection.settimeout(0.1)
        with suppress(ConnectionError):
            while time.monotonic() - begun < 4:
                with suppress(TimeoutError):
                    if not connection.recv(1000):
                        break
                connection.sendall(b"{")
        assert time.monotonic() - begun < 3


def test_connections_that_wait_make_room_for_others(server: Served) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(opened(server)).sendall(b"GET / HTTP/1.1\r\nx-a: ")
        assert is_answered(server)
        assert is_answered(server, source="127.0.0.2")
        assert len(server.server.server_state.connections) <= LIMITS.per_peer + 1


def test_all_together_are_bounded(server: Served) -> None:
    with ExitStack() as stack:
        for number in range(60):
            source = f"127.0.0.{number % 6 + 1}"
            stack.enter_context(opened(server, source)).sendall(b"GET / HTTP/1.1\r\nx-a: ")
        assert is_answered(server, source="127.0.0.9")
        assert len(server.server.server_state.connections) <= LIMITS.connections + 1


def test_a_refused_body_does_not_cut_the_answer_off(server: Served) -> None:
    """A client that writes all before it reads sees 413 instead of a reset."""
    body = b"x" * 1_100_000
    for _ in range(3):
        status, _ = answer_to(
            server, request("POST", "/datasets", body=body[:200_000], length=len(body)), body[200_000:]
        )
        assert status == 413


def test_limits_stay_below_the_open_files() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024));"
        "from influencerai.serve.connections import ConnectionLimits; limits = ConnectionLimits.of_process();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], limits.connections, limits.per_peer)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["1024", "768", "384"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1024
