"""Victim: another tenant, who goes on with ordinary calls; how long each takes, at rest and under attack."""

from __future__ import annotations

import asyncio
import io
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from PIL import Image

TENANT = "tenant-b"
PATIENCE_SECONDS = 60.0
Call = Callable[[], Awaitable[httpx2.Response]]


class Victim:
    """Calls of tenant-b, one after another, for as long as they are wanted."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.AsyncClient(
            base_url=url, headers={"x-tenant-id": TENANT}, timeout=httpx2.Timeout(PATIENCE_SECONDS)
        )
        self._numbers = itertools.count()
        self._dataset = ""

    async def prepare(self) -> None:
        made = await self._client.post("/datasets", json={"kind": "lora-training", "path": "data/b"})
        self._dataset = made.json()["id"]
        await self._upload()

    async def close(self) -> None:
        await self._client.aclose()

    async def measure(self, until: Callable[[], bool], *, rounds: int = 5) -> dict[str, Any]:
        """Milliseconds and failures of each call, at least `rounds` times each, until the time has come."""
        calls: dict[str, Call] = {
            "GET /readyz": lambda: self._client.get("/readyz"),
            "GET /datasets": lambda: self._client.get("/datasets"),
            "POST /datasets": lambda: self._client.post(
                "/datasets", json={"kind": "lora-training", "path": "data/b", "meta": {"n": next(self._numbers)}}
            ),
            "thumbnail": lambda: self._client.get(f"/datasets/{self._dataset}/images/0.png/thumbnail"),
            "upload": self._upload,
        }
        times: dict[str, list[float]] = defaultdict(list)
        failures: dict[str, int] = defaultdict(int)
        while not until() or rounds > 0:
            rounds -= 1
            for name, call in calls.items():
                begun = time.perf_counter()
                try:
                    failures[name] += (await call()).status_code >= 400
                except httpx2.HTTPError:
                    failures[name] += 1
                times[name].append((time.perf_counter() - begun) * 1000)
                await asyncio.sleep(0.05)
        return {name: {**_summary(found), "failures": failures[name]} for name, found in times.items()}

    async def _upload(self) -> httpx2.Response:
        number = next(self._numbers)
        return await self._client.post(
            f"/datasets/{self._dataset}/images",
            files={"files": ("0.png", _small(number))},
            data={"replace": "true"},
        )


def _small(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (160, 128), (number % 256, number // 256 % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "count": len(ordered),
        "p50_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
        "worst_ms": round(ordered[-1], 1),
    }
