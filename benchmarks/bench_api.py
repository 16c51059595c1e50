"""The server: requests per second against a bare FastAPI route, long lists, open streams, starts, first steps."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from benchmarks.servers import Server, bare, server
from influencerai.demo.characters import write_character
from influencerai.domain.dataset import DatasetDraft
from influencerai.domain.job_snapshot import DatasetReference, JobSnapshot
from influencerai.domain.lora_config import LoraConfig
from influencerai.store import Store
from influencerai.store.job_rows import NewJob

TARGETS = {
    "GET job, share of the bare route": ">= 0.7",
    "100,000 jobs over 100, first page": "<= 1.5",
    "ready after, s": "<= 15",
    "200 streams, slow-down without Ray": "<= 1.5",
    "submit to first step, warm, s": "<= 3",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=200)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few, many = asyncio.run(fill(root, many=arguments.many))
        block = {"rounds": arguments.rounds, "seconds": arguments.seconds}
        with bare(root) as bare_port, server(root, "--no-ray", "--runner", "none") as local:
            figures["get"] = compare(
                {"bare": (bare_port, f"/jobs/{few}"), "ours": (local.port, f"/jobs/{few}")}, **block
            )
            figures["get"]["cpu_ms"] = cost(local, f"/jobs/{few}", **block)
            lists = {"few": (local.port, "/jobs", "bench"), "many": (local.port, "/jobs", "crowd")}
            figures["list"] = compare_lists(lists, rounds=arguments.rounds)
            figures["streams"] = compare_streams(local.port, few, many, streams=arguments.streams, **block)
        with bare(root) as bare_port, server(root, "--runner", "none") as on_ray:
            places = {"bare": (bare_port, f"/jobs/{few}"), "ours": (on_ray.port, f"/jobs/{few}")}
            figures["ray_get"] = compare(places, **block)
            figures["ray_get"]["cpu_ms"] = cost(on_ray, f"/jobs/{few}", **block)
            figures["ray_streams"] = compare_streams(on_ray.port, few, many, streams=arguments.streams, **block)
            figures["ray_memory_mib"] = on_ray.memory_mib()
        starts = [restarted(root) for _ in range(3)]
        figures["ray_ready_seconds"] = statistics.median(start.ready_seconds for start in starts)
        figures["ray_stop_seconds"] = statistics.median(start.stop_seconds for start in starts)
        figures["first_step"] = first_steps(root / "training")
    write_report(
        arguments.out,
        "api",
        config={**block, "many": arguments.many, "streams": arguments.streams, "connections": 8},
        figures=figures,
        text=table(figures),
    )


async def fill(root: Path, *, many: int) -> tuple[str, str]:
    """A database with 100 jobs of one tenant and `many` of another; ids of a job of each, which is pending."""
    file = root / ".influencerai" / "influencerai.db"
    store = Store(f"sqlite:///{file}")
    await store.database.check()
    ids = {}
    for tenant in ("bench", "crowd"):
        async with store.write() as transaction:
            draft = DatasetDraft(kind="lora-training", path="data/datasets/none")
            dataset = await transaction.datasets.add(tenant, draft, status="failed", report=None)
            config = LoraConfig(name="bench", model_name="influencerai/tiny-avatars", meta={"triggerWord": "ohwx"})
            record = await transaction.lora_configs.add(tenant, config)
            new = NewJob(
                type="lora-training",
                payload={"datasetId": dataset.id, "loraConfigId": record.id},
                snapshot=JobSnapshot(config=config, dataset=DatasetReference(id=dataset.id, path=dataset.path)),
                dataset_id=dataset.id,
                config_id=record.id,
                priority=5,
                output_dir="data/loras/bench",
            )
            ids[tenant] = (await transaction.jobs.add(tenant, new)).job.id
    await store.database.close()
    with sqlite3.connect(file) as connection:
        for tenant, count in (("bench", 99), ("crowd", many - 1)):
            copy_job(connection, ids[tenant], count=count)
    return ids["bench"], ids["crowd"]


def copy_job(connection: sqlite3.Connection, id: str, *, count: int) -> None:
    """Completed jobs like this one, each made a second before the one that follows, with their place in the counts."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
    changed = {
        "id": "id || '-' || n.number",
        "status": "'completed'",
        "active_dataset_id": "NULL",
        "active_config_id": "NULL",
        "created_at": "created_at - 1000 * n.number",
        "updated_at": "updated_at - 1000 * n.number",
        "finished_at": "updated_at - 1000 * n.number",
    }
    connection.execute(
        f"""
        WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < ?)
        INSERT INTO jobs ({", ".join(columns)})
        SELECT {", ".join(changed.get(column, column) for column in columns)} FROM jobs, n WHERE id = ?
        """,
        (count, id),
    )
    connection.execute(
        "INSERT INTO counts (tenant_id, noun, first, second, count) "
        "SELECT tenant_id, 'job', 'completed', type, ? FROM jobs WHERE id = ?",
        (count, id),
    )


def compare(places: Mapping[str, tuple[int, str]], *, rounds: int, seconds: float) -> dict[str, Any]:
    """The medians of blocks that take turns, and of the ratios of "ours" to "bare" in each round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in places}
    for _ in range(rounds):
        for name, (port, path) in places.items():
            found[name].append(load(port, path, seconds=seconds))
    figures: dict[str, Any] = {
        name: {key: statistics.median(block[key] for block in blocks) for key in blocks[0]}
        for name, blocks in found.items()
    }
    pairs = zip(found["ours"], found["bare"], strict=True)
    ratios = [ours["requests_per_second"] / yardstick["requests_per_second"] for ours, yardstick in pairs]
    return {**figures, "ratio": statistics.median(ratios), "ratios": ratios}


def cost(place: Server, path: str, *, rounds: int, seconds: float) -> dict[str, float]:
    """Milliseconds of CPU time that a request costs, by who spends it."""
    before = place.cpu_seconds()
    requests = sum(load(place.port, path, seconds=seconds)["requests"] for _ in range(rounds))
    spent = {role: (after - before.get(role, 0)) * 1000 / requests for role, after in place.cpu_seconds().items()}
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def compare_lists(places: Mapping[str, tuple[int, str, str]], *, rounds: int) -> dict[str, Any]:
    """Milliseconds of first pages, one request at a time, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(40 * rounds):
        for name, (port, path, tenant) in places.items():
            begun = time.perf_counter()
            get(port, path, tenant)
            times[name].append((time.perf_counter() - begun) * 1000)
    figures: dict[str, Any] = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {**figures, "ratio": figures["many_ms"] / figures["few_ms"]}


def compare_streams(port: int, few: str, many: str, *, streams: int, rounds: int, seconds: float) -> dict[str, Any]:
    """A block with open streams after each one without; the slow-down is the ratio of their rates."""
    ratios, latencies = [], []
    for _ in range(rounds):
        quiet = load(port, f"/jobs/{few}", seconds=seconds)
        with open_streams(port, many, count=streams):
            busy = load(port, f"/jobs/{few}", seconds=seconds)
        ratios.append(quiet["requests_per_second"] / busy["requests_per_second"])
        latencies.append(busy["p99_ms"])
    return {"slow_down": statistics.median(ratios), "ratios": ratios, "p99_ms": statistics.median(latencies)}


@contextlib.contextmanager
def open_streams(port: int, job: str, *, count: int) -> Iterator[None]:
    request = (
        f"GET /jobs/{job}/events HTTP/1.1\r\nhost: x\r\nx-tenant-id: crowd\r\naccept: text/event-stream\r\n\r\n"
    ).encode()
    opened = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.sendall(request)
        opened.append(connection)
    for connection in opened:
        seen = b""
        while b": open" not in seen:
            seen += connection.recv(65536)
    try:
        yield
    finally:
        for connection in opened:
            connection.close()
        time.sleep(1)


def restarted(root: Path) -> Server:
    """A server with Ray that was started and stopped, with the seconds of both."""
    with server(root) as started:
        return started


def first_steps(root: Path, *, jobs: int = 5) -> dict[str, Any]:
    """Seconds from POST /jobs to the first step with a running worker; the first job also encodes its images."""
    root.mkdir()
    write_character("ava", root / "data" / "datasets" / "ava")
    seconds = []
    with server(root, "--no-ray", "--runner", "inline") as started:
        port = started.port
        dataset = post(port, "/datasets", {"kind": "lora-training", "path": "data/datasets/ava"})
        fields = {"modelName": "influencerai/tiny-avatars", "epochs": 1, "batchSize": 4, "resolution": 128}
        config = post(port, "/lora-configs", {"name": "first step", **fields, "networkDim": 8, "networkAlpha": 4})
        payload = {"datasetId": dataset["id"], "loraConfigId": config["id"]}
        for _ in range(jobs):
            job = post(port, "/jobs", {"type": "lora-training", "payload": payload})
            created = milliseconds(job["createdAt"])
            while True:
                events = get(port, f"/jobs/{job['id']}/events?take=1000", "first")["data"]
                steps = [event for event in events if event["type"] == "progress" and event["data"].get("step")]
                if steps and get(port, f"/jobs/{job['id']}", "first")["status"] == "completed":
                    break
                time.sleep(0.1)
            seconds.append((milliseconds(steps[0]["createdAt"]) - created) / 1000)
    return {"with_encoding_seconds": seconds[0], "warm_seconds": statistics.median(seconds[1:]), "seconds": seconds}


def load(port: int, path: str, *, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", str(port), path, "--seconds", str(seconds)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def get(port: int, path: str, tenant: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"x-tenant-id": tenant})
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def post(port: int, path: str, body: Mapping[str, Any]) -> Any:
    headers = {"x-tenant-id": "first", "content-type": "application/json"}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def milliseconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp() * 1000


def table(figures: Mapping[str, Any]) -> str:
    rows = {
        "GET job, share of the bare route": figures["get"]["ratio"],
        "GET job without Ray, requests/s": figures["get"]["ours"]["requests_per_second"],
        "GET job without Ray, p50 / p99 ms": pair(figures["get"]["ours"]),
        "GET job without Ray, CPU ms per request": shares(figures["get"]["cpu_ms"]),
        "GET job through Ray Serve, share of the bare route": figures["ray_get"]["ratio"],
        "GET job through Ray Serve, requests/s": figures["ray_get"]["ours"]["requests_per_second"],
        "GET job through Ray Serve, p50 / p99 ms": pair(figures["ray_get"]["ours"]),
        "GET job through Ray Serve, CPU ms per request": shares(figures["ray_get"]["cpu_ms"]),
        "100,000 jobs over 100, first page": figures["list"]["ratio"],
        "200 streams, slow-down without Ray": figures["streams"]["slow_down"],
        "200 streams, slow-down with Ray Serve": figures["ray_streams"]["slow_down"],
        "ready after, s": figures["ray_ready_seconds"],
        "stopped after, s": figures["ray_stop_seconds"],
        "memory of the stack, MiB": figures["ray_memory_mib"],
        "submit to first step, warm, s": figures["first_step"]["warm_seconds"],
        "submit to first step, images not encoded yet, s": figures["first_step"]["with_encoding_seconds"],
    }
    lines = ["| what | figure | target |", "|---|---|---|"]
    for name, value in rows.items():
        shown = value if isinstance(value, str) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
        lines.append(f"| {name} | {shown} | {TARGETS.get(name, '')} |")
    return "\n".join(lines)


def pair(figures: Mapping[str, float]) -> str:
    return f"{figures['p50_ms']:.1f} / {figures['p99_ms']:.1f}"


def shares(cost: Mapping[str, float]) -> str:
    return ", ".join(f"{role} {value:.2f}" for role, value in cost.items() if value >= 0.01)


if __name__ == "__main__":
    main()
