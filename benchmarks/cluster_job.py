"""One job on a Ray cluster of this machine: where the time to its first step goes, and what watching it costs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from influencerai.demo.characters import MODEL_ID, write_character
from influencerai.job_process.supervisor import LOG_FILE
from tests.servers import Server, serve

PARTS = ("claimed", "begun", "checking", "encoding", "training", "first step")
_TICKS = os.sysconf("SC_CLK_TCK")


def first_steps(root: Path, *, jobs: int = 6) -> dict[str, Any]:
    """Seconds from POST /jobs to each part of the way to the first step, the node being warm."""
    with _stack(root) as (server, dataset):
        config = _config(server, epochs=1)
        found = [_submit(server, dataset, config) for _ in range(jobs)][1:]  # the first one encodes the images
        seconds = [_parts(server, id) for id in found]
    return {part: statistics.median(item[part] for item in seconds) for part in PARTS}


def overhead(root: Path, *, epochs: int = 200) -> dict[str, float]:
    """CPU-seconds of a training, and of the process that watches it: leases, heartbeats, events, figures, files."""
    with _stack(root) as (server, dataset):
        _submit(server, dataset, _config(server, epochs=1))
        long = _config(server, epochs=epochs, name="long")
        [supervisor] = _named("ray::IDLE", "ray::train")
        before = _cpu_seconds(supervisor)
        id = _post(server, dataset, long)
        log, training = root / ".influencerai" / "runs" / id / LOG_FILE, 0.0
        while server.ask("GET", f"/jobs/{id}").document["status"] in ("pending", "running"):
            training = max([training, *(_cpu_seconds(pid) for pid in _writers(log))])
            time.sleep(0.5)
        watching = _cpu_seconds(supervisor) - before
    return {"training_cpu_seconds": training, "watching_cpu_seconds": watching, "ratio": watching / training}


@contextmanager
def _stack(root: Path) -> Iterator[tuple[Server, str]]:
    """A server with Ray over pictures of a sample character, and the dataset's id."""
    root.mkdir()
    write_character("ava", root / "data" / "datasets" / "ava")
    with serve(root, ray=True, runner="ray") as server:
        draft = {"kind": "lora-training", "path": "data/datasets/ava"}
        yield server, server.ask("POST", "/datasets", draft).document["id"]


def _config(server: Server, *, epochs: int, name: str = "short") -> str:
    fields = {"modelName": MODEL_ID, "epochs": epochs, "batchSize": 4, "resolution": 128, "networkDim": 8}
    id: str = server.ask("POST", "/lora-configs", {"name": name, **fields, "networkAlpha": 4}).document["id"]
    return id


def _post(server: Server, dataset: str, config: str) -> str:
    payload = {"datasetId": dataset, "loraConfigId": config}
    id: str = server.ask("POST", "/jobs", {"type": "lora-training", "payload": payload}).document["id"]
    return id


def _submit(server: Server, dataset: str, config: str) -> str:
    id = _post(server, dataset, config)
    server.wait_for_job(id, seconds=300)
    return id


def _parts(server: Server, id: str) -> dict[str, float]:
    job = server.ask("GET", f"/jobs/{id}").document
    events = server.ask("GET", f"/jobs/{id}/events?take=1000").document["data"]
    [attempt] = job["attempts"]
    times = {"claimed": attempt["startedAt"], "begun": attempt["begunAt"]}
    for event in events:
        if event["type"] == "stage":
            times.setdefault(event["data"]["stage"], event["createdAt"])
        elif event["type"] == "progress" and event["data"].get("step"):
            times.setdefault("first step", event["createdAt"])
    begin = _seconds(job["createdAt"])
    last = begin
    found = {}
    for part in PARTS:  # a stage that is over at once is not written down on its own
        last = _seconds(times[part]) if part in times else last
        found[part] = last - begin
    return found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _named(*titles: str) -> list[int]:
    return [pid for pid in _processes() if _title(pid).startswith(titles) and _has_fork_server(pid)]


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def _has_fork_server(pid: int) -> bool:
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any("fork_server" in _title(int(child)) for child in children)
    return False


def _writers(log: Path) -> list[int]:
    found = []
    for pid in _processes():
        with suppress(OSError):
            if Path(f"/proc/{pid}/fd/2").readlink() == log:
                found.append(pid)
    return found


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _cpu_seconds(pid: int) -> float:
    """Of all its threads, since it began."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0
