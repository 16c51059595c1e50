"""Pictures: flat PNGs of 196 KB that take 201 MB decoded, in uploads at once and in reports that nobody waits for."""

from __future__ import annotations

import asyncio
import io
import time
from functools import cache
from typing import Any

import httpx2
from PIL import Image

from benchmarks.attacks.victim import Victim
from benchmarks.servers import Server

SIDE = 8190
PICTURES = 12
READS, READ_SECONDS = 40, 1.0
UPLOADS = 8
WATCH_SECONDS = 45.0


async def run(server: Server) -> dict[str, Any]:
    """Latencies of tenant-b beside both attacks, and the server's memory before, during and after them."""
    url = f"http://127.0.0.1:{server.port}"
    victim = Victim(url)
    attacker = httpx2.AsyncClient(base_url=url, headers={"x-tenant-id": "tenant-a"}, timeout=httpx2.Timeout(900))
    try:
        await victim.prepare()
        _picture()  # which takes a second, in which the victim would not be measured
        figures = {"at rest": await victim.measure(lambda: True, rounds=20)}
        memory = {"at rest": server.memory_mib()}
        figures["reads"], memory["reads"] = await _watched(server, victim, _reads(attacker))
        figures["uploads"], memory["uploads"] = await _watched(server, victim, _uploads(attacker))
        await asyncio.sleep(5)
        memory["afterwards"] = server.memory_mib()
    finally:
        await attacker.aclose()
        await victim.close()
    return {"victim": figures, "memory_mib": {name: round(value) for name, value in memory.items()}}


async def _watched(server: Server, victim: Victim, attack: Any) -> tuple[dict[str, Any], float]:
    """The victim's figures from the attack's beginning on, and the most memory of that time."""
    begun = time.perf_counter()
    attacking = asyncio.create_task(attack)
    most = 0.0

    async def watch_memory() -> None:
        nonlocal most
        while True:
            most = max(most, await asyncio.to_thread(server.memory_mib))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch_memory())

    def is_over() -> bool:
        seconds = time.perf_counter() - begun
        return seconds > WATCH_SECONDS or (attacking.done() and seconds > WATCH_SECONDS / 3)

    found = await victim.measure(is_over)
    attacking.cancel()
    watching.cancel()
    await asyncio.gather(attacking, watching, return_exceptions=True)
    return found, most


async def _reads(attacker: httpx2.AsyncClient) -> None:
    made = await attacker.post("/datasets", json={"kind": "lora-training", "path": "data/a"})
    id = made.json()["id"]
    await attacker.post(f"/datasets/{id}/images", files=_files(0))

    async def read() -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await attacker.get(f"/datasets/{id}/report", params={"refresh": "true"})
        except TimeoutError:
            pass

    await asyncio.gather(*(read() for _ in range(READS)))


async def _uploads(attacker: httpx2.AsyncClient) -> None:
    async def upload(number: int) -> None:
        made = await attacker.post("/datasets", json={"kind": "lora-training", "path": f"data/a{number}"})
        await attacker.post(f"/datasets/{made.json()['id']}/images", files=_files(1 + number))

    await asyncio.gather(*(upload(number) for number in range(UPLOADS)))


def _files(set_: int) -> list[tuple[str, tuple[str, bytes]]]:
    """Pictures whose bytes no other set has."""
    return [("files", (f"{number}.png", _picture() + bytes([set_, number]))) for number in range(PICTURES)]


@cache
def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (5, 5, 5)).save(buffer, "PNG")
    return buffer.getvalue()
