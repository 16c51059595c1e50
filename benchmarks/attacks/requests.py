"""Requests: bodies of unknown names, heads without end, connections that are never used, and many requests at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx2

from benchmarks.attacks.victim import Victim
from benchmarks.servers import Server
from influencerai.serve.connections import raise_file_limit

NAMES, LINES, HEADS, HALF_OPEN, READERS, WRITERS = 50_000, 90_000, 60, 1200, 50, 50
ROUNDS = 5
SECONDS = 15.0
START_SECONDS = 1.5
HELD_SECONDS = 60.0
ATTACKER_NICENESS = "10"
"""As the server's own threads for pictures: an attacker works on a machine of its own, this one on the server's."""


async def run(server: Server) -> dict[str, Any]:
    """Latencies of tenant-b beside each attack, and the server's memory after it."""
    victim = Victim(f"http://127.0.0.1:{server.port}")
    try:
        await victim.prepare()
        async with _attacker(server.port) as attacker:
            await _fill(attacker)
        figures, memory = {"at rest": await victim.measure(lambda: True, rounds=40)}, {"at rest": server.memory_mib()}
        for name in ATTACKS:
            figures[name] = await _during(victim, server.port, name)
            memory[name] = server.memory_mib()
    finally:
        await victim.close()
    return {"victim": figures, "memory_mib": {name: round(value) for name, value in memory.items()}}


async def _during(victim: Victim, port: int, name: str) -> dict[str, Any]:
    """The victim's figures while another process attacks."""
    command = ["nice", "-n", ATTACKER_NICENESS, sys.executable, "-m", "benchmarks.attacks.requests", str(port), name]
    attacking = subprocess.Popen(command)
    try:
        await asyncio.sleep(START_SECONDS)
        ends_at = time.monotonic() + SECONDS
        return await victim.measure(lambda: time.monotonic() > ends_at, rounds=ROUNDS)
    finally:
        attacking.kill()
        attacking.wait()


def main() -> None:
    """Attack until killed."""
    raise_file_limit()  # of the attacker; the server has the limit that the benchmark was started with
    port, name = int(sys.argv[1]), sys.argv[2]

    async def repeat() -> None:
        while True:
            with suppress(OSError, httpx2.HTTPError):
                await ATTACKS[name](port)

    asyncio.run(repeat())


def _attacker(port: int) -> httpx2.AsyncClient:
    headers = {"x-tenant-id": "tenant-a", "content-type": "application/json"}
    limits = httpx2.Limits(max_connections=200)
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=httpx2.Timeout(300), limits=limits
    )


async def _fill(attacker: httpx2.AsyncClient) -> None:
    """A hundred jobs to list."""
    dataset = (await attacker.post("/datasets", json={"kind": "lora-training", "path": "data/none"})).json()["id"]
    config = (await attacker.post("/lora-configs", json={"name": "a", "modelName": "x"})).json()["id"]
    body = {"type": "lora-training", "payload": {"datasetId": dataset, "loraConfigId": config}}
    for _ in range(100):
        await attacker.post("/jobs", json=body)


async def _unknown_names(port: int) -> None:
    meta = {f"optimize{number}": 1 for number in range(NAMES)}
    body = json.dumps({"name": "n", "modelName": "x", "meta": meta})
    async with _attacker(port) as attacker:
        await attacker.post("/lora-configs", content=body)


async def _endless_heads(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        for number in range(HEADS):
            writer.write(b"".join(b"x%d%d: a\r\n" % (number, line) for line in range(LINES)))
            await writer.drain()
        writer.write(b"\r\n")
        await reader.read(100)
    finally:
        writer.close()


async def _half_open(port: int) -> None:
    writers = []
    try:
        for _ in range(HALF_OPEN):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nx-a: ")
            writers.append(writer)
        await asyncio.sleep(HELD_SECONDS)
    finally:
        for writer in writers:
            writer.close()


async def _readers(port: int) -> None:
    async with _attacker(port) as attacker:
        while True:
            await asyncio.gather(*(attacker.get("/jobs?take=100") for _ in range(READERS)))


async def _writers(port: int) -> None:
    async with _attacker(port) as attacker:
        while True:
            name = time.monotonic_ns()
            bodies = ({"name": f"{name} {number}", "modelName": "x"} for number in range(WRITERS))
            await asyncio.gather(*(attacker.post("/lora-configs", json=body) for body in bodies))


ATTACKS: dict[str, Callable[[int], Awaitable[None]]] = {
    "unknown names": _unknown_names,
    "endless heads": _endless_heads,
    "half-open connections": _half_open,
    "50 readers": _readers,
    "50 writers": _writers,
}

if __name__ == "__main__":
    main()
