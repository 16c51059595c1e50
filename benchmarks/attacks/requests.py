"""Requests: bodies of unknown names, heads without end, connections that are never used, and many requests at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx2

from benchmarks.attacks.victim import Victim
from benchmarks.servers import Server
from influencerai.serve.connections import raise_file_limit

NAMES, LINES, HEADS, HALF_OPEN, READERS, WRITERS = 50_000, 90_000, 60, 1200, 50, 50
ROUNDS = 2
SECONDS = 8.0


async def run(server: Server) -> dict[str, Any]:
    """What tenant-b notices of each, and the server's memory after each."""
    raise_file_limit()  # of the attacker; the server has the limit that this program was started with
    url = f"http://127.0.0.1:{server.port}"
    victim = Victim(url)
    headers = {"x-tenant-id": "tenant-a", "content-type": "application/json"}
    limits = httpx2.Limits(max_connections=200)
    attacker = httpx2.AsyncClient(base_url=url, headers=headers, timeout=httpx2.Timeout(300), limits=limits)
    attacks: dict[str, Callable[[], Awaitable[None]]] = {
        "unknown names": lambda: _unknown_names(attacker),
        "endless heads": lambda: _endless_heads(server.port),
        "half-open connections": lambda: _half_open(server.port),
        "50 readers": lambda: _readers(attacker),
        "50 writers": lambda: _writers(attacker),
    }
    try:
        await victim.prepare()
        await _fill(attacker)
        figures, memory = {"at rest": await victim.measure(lambda: True, rounds=20)}, {"at rest": server.memory_mib()}
        for name, attack in attacks.items():
            figures[name] = await _during(victim, attack)
            memory[name] = server.memory_mib()
    finally:
        await attacker.aclose()
        await victim.close()
    return {"victim": figures, "memory_mib": {name: round(value) for name, value in memory.items()}}


async def _during(victim: Victim, attack: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """The victim's figures while the attack is repeated."""
    ends_at = time.monotonic() + SECONDS

    async def repeat() -> None:
        while time.monotonic() < ends_at:
            with suppress(OSError, httpx2.HTTPError):
                await attack()

    attacking = asyncio.create_task(repeat())
    found = await victim.measure(lambda: time.monotonic() > ends_at, rounds=ROUNDS)
    attacking.cancel()
    await asyncio.gather(attacking, return_exceptions=True)
    return found


async def _fill(attacker: httpx2.AsyncClient) -> None:
    """A hundred jobs to list."""
    dataset = (await attacker.post("/datasets", json={"kind": "lora-training", "path": "data/none"})).json()["id"]
    config = (await attacker.post("/lora-configs", json={"name": "a", "modelName": "x"})).json()["id"]
    body = {"type": "lora-training", "payload": {"datasetId": dataset, "loraConfigId": config}}
    for _ in range(100):
        await attacker.post("/jobs", json=body)


async def _unknown_names(attacker: httpx2.AsyncClient) -> None:
    meta = {f"optimize{number}": 1 for number in range(NAMES)}
    await attacker.post("/lora-configs", content=json.dumps({"name": "n", "modelName": "x", "meta": meta}))


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
        await asyncio.sleep(SECONDS)
    finally:
        for writer in writers:
            writer.close()


async def _readers(attacker: httpx2.AsyncClient) -> None:
    await asyncio.gather(*(attacker.get("/jobs?take=100") for _ in range(READERS)))


async def _writers(attacker: httpx2.AsyncClient) -> None:
    name = time.monotonic_ns()
    bodies = ({"name": f"{name} {number}", "modelName": "x"} for number in range(WRITERS))
    await asyncio.gather(*(attacker.post("/lora-configs", json=body) for body in bodies))
