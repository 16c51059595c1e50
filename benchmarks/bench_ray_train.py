"""One job inside Ray Train: two of its workers on the CPU make what one process makes, to rounding.

The cluster does not use Ray Train (docs/decisions.md); this shows that our ranks join a group made by Ray Train.
It needs `pip install 'ray[train]'`, which nothing else here does.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "OMP_NUM_THREADS": "1"}

import ray
import torch
from safetensors.torch import load

from benchmarks.report import write_report
from influencerai.job_process.channel import Channel
from influencerai.job_process.entry import follow_attempt, run_attempt
from influencerai.job_process.messages import Completed, Go, Prepared, ProcessMessage
from influencerai.train.ranks import Ranks, joined_ranks
from tests.attempts import OUTPUT, lora_files, make_request, write_pictures

WORKERS = 2
TARGET = 1e-3
_REPOSITORY = str(Path(__file__).parents[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    if find_spec("pyarrow") is None:
        parser.error("Ray Train is not installed: pip install 'ray[train]'")
    with tempfile.TemporaryDirectory() as folder:
        alone, together = Path(folder) / "alone", Path(folder) / "together"
        for place in (alone, together):
            write_pictures(place, count=4)
        torch.set_num_threads(1)
        train(alone, Ranks())
        begun = time.monotonic()
        train_inside_ray(together)
        seconds = time.monotonic() - begun
        difference = largest_difference(alone, together)
    figures = {"difference": difference, "seconds": seconds}
    rows = {"largest difference of a tensor, over its norm": f"{difference:.2g} | <= {TARGET:g}"}
    rows["seconds, Ray's start included"] = f"{seconds:.0f} |"
    text = "\n".join(["| what | figure | target |", "|---|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())])
    config = {"workers": WORKERS, "ray": ray.__version__}
    write_report(arguments.out, "ray_train", config=config, figures=figures, text=text)
    if difference > TARGET:
        raise SystemExit(1)


def train(place: Path, ranks: Ranks) -> None:
    """Six steps of two images, as the rank that this process is."""
    order = make_request(place, config={"batchSize": 2, "epochs": 3})
    if not ranks.is_first:
        follow_attempt(order, ranks=ranks)
        return
    said: list[ProcessMessage] = []

    def agree() -> Go:
        [prepared] = [message for message in said if isinstance(message, Prepared)]
        return Go(spec=prepared.spec)

    channel = Channel(send=said.append, receive=agree, stop_requested=lambda: False)
    run_attempt(order, channel, ranks=ranks)
    if not isinstance(said[-1], Completed):
        raise RuntimeError(said[-1])


def train_inside_ray(place: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    variables = {"PYTHONPATH": os.pathsep.join((_REPOSITORY, os.environ.get("PYTHONPATH", ""))), "OMP_NUM_THREADS": "1"}
    ray.init(num_cpus=WORKERS + 1, include_dashboard=False, runtime_env={"env_vars": variables})
    try:
        TorchTrainer(
            _work,
            train_loop_config={"place": str(place)},
            scaling_config=ScalingConfig(num_workers=WORKERS),
            run_config=RunConfig(storage_path=str(place / "ray"), name="job"),
        ).fit()
    finally:
        ray.shutdown()


def largest_difference(alone: Path, together: Path) -> float:
    name = "test-run-final.safetensors"
    ours, theirs = (load(lora_files(place / OUTPUT)[name]) for place in (together, alone))
    assert ours.keys() == theirs.keys()
    return max(
        float(torch.linalg.vector_norm(ours[key] - tensor) / torch.linalg.vector_norm(tensor).clamp_min(1e-12))
        for key, tensor in theirs.items()
    )


def _work(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    with joined_ranks("cpu") as ranks:
        assert ranks.count == WORKERS
        train(Path(config["place"]), ranks)


if __name__ == "__main__":
    main()
