"""Training steps alone and beside busy processes, by how long threads spin: same bytes, other speed.

The variants take turns in one run; each is a process of its own, since OpenMP reads its settings when it is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.report import write_report

VARIANTS = {"300000 (libgomp's own)": "300000", "1000 (ours)": "1000", "0 (passive)": "0"}
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--busy", type=int, default=2, help="busy processes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(arguments.train, steps=arguments.steps)))
        return
    figures = measure(rounds=arguments.rounds, steps=arguments.steps, busy=arguments.busy)
    config = {"rounds": arguments.rounds, "steps": arguments.steps, "busy": arguments.busy, "threads": 2}
    write_report(arguments.out, "busy", config=config, figures=figures, text=table(figures))


def measure(*, rounds: int, steps: int, busy: int) -> dict[str, Any]:
    """Median seconds of a step by variant and company, the load at the start, and whether all bytes are equal."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"alone": [], "busy": []} for name in VARIANTS}
    digests, load = set(), os.getloadavg()[0]
    for _ in range(rounds):
        for company in ("alone", "busy"):
            for name, spins in VARIANTS.items():
                with _company(busy if company == "busy" else 0):
                    found = _child(spins, steps=steps)
                seconds[name][company].append(found["seconds"])
                digests.add(found["sha256"])
    medians = {name: {key: statistics.median(values) for key, values in each.items()} for name, each in seconds.items()}
    return {"secondsPerStep": medians, "all": seconds, "loadAtStart": load, "equalBytes": len(digests) == 1}


def train(root: Path, *, steps: int) -> dict[str, Any]:
    """Train the embedded model for `steps` steps with two threads."""
    from influencerai import LoraConfig, Settings, Trainer
    from influencerai.demo.characters import write_character
    from influencerai.domain import Event, StepEvent

    write_character("ava", root / "ava")
    for picture in sorted((root / "ava").glob("*.png"))[steps:]:
        picture.unlink()
    times: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, StepEvent):
            times.append(time.monotonic())

    config = LoraConfig(
        name="busy", model_name="influencerai/tiny-avatars", epochs=1, resolution=128, batch_size=1, network_dim=8
    )
    settings = Settings(root=root, threads=2, device="cpu", allow_downloads=False)
    run = Trainer(config, settings=settings, on_event=note).train("ava")
    intervals = [after - before for before, after in pairwise(times)][WARM_UP:]
    digest = hashlib.sha256(run.lora_path.read_bytes()).hexdigest()
    return {"seconds": statistics.median(intervals), "sha256": digest}


def table(figures: dict[str, Any]) -> str:
    """Seconds per step, and the share of its own speed that a variant keeps beside the busy processes."""
    lines = ["| spins | alone, s per step | beside busy processes, s per step | speed kept |", "|---|---|---|---|"]
    for name, each in figures["secondsPerStep"].items():
        kept = each["alone"] / each["busy"]
        lines.append(f"| {name} | {each['alone']:.3f} | {each['busy']:.3f} | {kept:.0%} |")
    lines += ["", f"Load of the machine at the start: {figures['loadAtStart']:.1f}. "]
    lines[-1] += "All files have the same bytes." if figures["equalBytes"] else "The files DIFFER."
    return "\n".join(lines)


def _child(spins: str, *, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GOMP_SPINCOUNT": spins, "OMP_NUM_THREADS": "2", "SOURCE_DATE_EPOCH": "1700000000"}
        command = [sys.executable, "-m", "benchmarks.bench_busy", "--train", folder, "--steps", str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def _company(count: int) -> Iterator[None]:
    """Processes that keep a core busy all the time."""
    processes = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
