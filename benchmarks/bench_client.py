"""The Python SDK: what its calls cost over the same requests by httpx2, against a real server, taking turns."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.bench_api import fill
from benchmarks.report import write_report
from benchmarks.servers import server
from influencerai import AsyncInfluencerAIClient, InfluencerAIClient

TARGET = "<= 1.15"
TENANT = "bench"
Call = Callable[[], Any]
_names = (f"config {number}" for number in itertools.count())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--calls", type=int, default=400, help="of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        job, _ = asyncio.run(fill(root, many=100))
        with server(root, "--no-ray", "--runner", "none") as started:
            url = f"http://127.0.0.1:{started.port}"
            blocking = compare_blocking(url, job, calls=arguments.calls)
            awaited = asyncio.run(compare_awaited(url, job, calls=arguments.calls))
    figures = {"blocking": blocking, "awaited": awaited}
    write_report(arguments.out, "client", config={"calls": arguments.calls}, figures=figures, text=table(figures))


def compare_blocking(url: str, job: str, *, calls: int) -> dict[str, dict[str, float]]:
    """Milliseconds of blocking calls; every one of them is checked to have got the job."""
    with httpx2.Client() as http, InfluencerAIClient(url, tenant_id=TENANT) as client:
        http.headers["x-tenant-id"] = TENANT
        kinds: dict[str, tuple[Call, Call]] = {
            "jobs.get": (lambda: raw(http.get(f"{url}/jobs/{job}")), lambda: client.jobs.get(job)),
            "a page of 100 of jobs.list": (
                lambda: raw(http.get(f"{url}/jobs", params={"take": 100})),
                lambda: len(list(client.jobs.list())) == 100,
            ),
            "lora_configs.create": (
                lambda: raw(http.post(f"{url}/lora-configs", json=new_config(), headers=new_key())),
                lambda: client.lora_configs.create(**snake_config()),
            ),
            "lora_configs.create, httpx2 without an idempotency key": (
                lambda: raw(http.post(f"{url}/lora-configs", json=new_config())),
                lambda: client.lora_configs.create(**snake_config()),
            ),
        }
        found = {}
        for name, both in kinds.items():
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(calls):
                for call, times in zip(both, taken, strict=True):
                    begun = time.perf_counter()
                    assert call()
                    times.append((time.perf_counter() - begun) * 1000)
            found[name] = summary(*taken)
    return found


async def compare_awaited(url: str, job: str, *, calls: int) -> dict[str, dict[str, float]]:
    """Milliseconds of awaited calls, one at a time."""
    async with httpx2.AsyncClient() as http, AsyncInfluencerAIClient(url, tenant_id=TENANT) as client:
        http.headers["x-tenant-id"] = TENANT

        async def by_http() -> Any:
            return raw(await http.get(f"{url}/jobs/{job}"))

        async def by_sdk() -> Any:
            return await client.jobs.get(job)

        taken: tuple[list[float], list[float]] = ([], [])
        both: tuple[Callable[[], Awaitable[Any]], ...] = (by_http, by_sdk)
        for _ in range(calls):
            for call, times in zip(both, taken, strict=True):
                begun = time.perf_counter()
                assert await call()
                times.append((time.perf_counter() - begun) * 1000)
    return {"jobs.get": summary(*taken)}


def raw(response: httpx2.Response) -> Any:
    return response.raise_for_status().json()


def new_key() -> dict[str, str]:
    """Without it nobody may try again what has got no answer; the server keeps it, which takes its time."""
    return {"idempotency-key": uuid.uuid4().hex}


def new_config() -> dict[str, Any]:
    return {"name": next(_names), "modelName": "influencerai/tiny-avatars", "networkDim": 8, "networkAlpha": 4}


def snake_config() -> dict[str, Any]:
    return {"name": next(_names), "model_name": "influencerai/tiny-avatars", "network_dim": 8, "network_alpha": 4}


def summary(raw_times: list[float], sdk_times: list[float]) -> dict[str, float]:
    """Medians, and the median of the ratios of neighbours, which a machine that slows down leaves alone."""
    ratios = [sdk / plain for plain, sdk in zip(raw_times, sdk_times, strict=True)]
    return {
        "http_ms": statistics.median(raw_times),
        "sdk_ms": statistics.median(sdk_times),
        "ratio": statistics.median(ratios),
    }


def table(figures: Mapping[str, Any]) -> str:
    lines = ["| call | httpx2, ms | SDK, ms | ratio | target |", "|---|---|---|---|---|"]
    for kind, found in figures.items():
        for name, row in found.items():
            target = "" if "without" in name else TARGET
            times = f"{row['http_ms']:.2f} | {row['sdk_ms']:.2f} | {row['ratio']:.2f}"
            lines.append(f"| {name}, {kind} | {times} | {target} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
