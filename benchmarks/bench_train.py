"""Images per second and peak memory of our loop against the textbook loop, alternating in one run, at equal loss.

python -m benchmarks.bench_train                                   # embedded model, CPU
python -m benchmarks.bench_train --family sdxl --random-weights    # full size, on a GPU, without a hub
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import multiprocessing
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_base import RandomBase, random_dataset
from benchmarks.report import write_report
from benchmarks.textbook import TextbookLoop, initial_weights
from influencerai.dataset import inspect_dataset
from influencerai.demo.characters import write_character
from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.models.device import fixed_execution
from influencerai.models.family import load_family
from influencerai.models.loadable_model import LoadableModel, find_loadable_model
from influencerai.settings import Settings
from influencerai.train.assembly import build, encode
from influencerai.train.backend import RunContext
from influencerai.train.optimization import Optimization
from influencerai.train.preparation import prepare_on
from influencerai.training_plan import TrainingPlan

VARIANTS = ("textbook", "textbook, cached", "ours")
Loop = TextbookLoop | Optimization
RESOLUTION = {"tiny": 128, "sd15": 512, "sdxl": 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=RESOLUTION, default="tiny")
    parser.add_argument("--random-weights", action="store_true", help="full size without a model on disk")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--checkpointing", choices=["off", "on", "both"], default="off")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=100, help="timed steps per variant")
    parser.add_argument("--block", type=int, default=5, help="steps before the variants take turns")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    modes = {"off": [False], "on": [True], "both": [False, True]}[arguments.checkpointing]
    config = {name: str(value) for name, value in vars(arguments).items() if name != "out"}
    name = f"train_{arguments.family}_{'cuda' if torch.cuda.is_available() else 'cpu'}"
    rows: list[dict[str, Any]] = []
    too_large: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for checkpointing in modes:
            for batch_size in arguments.batch_sizes:
                try:
                    rows.append(measure(arguments, batch_size, checkpointing, root=Path(folder)))
                except torch.OutOfMemoryError:
                    too_large.append(f"batch {batch_size}, checkpointing {'on' if checkpointing else 'off'}")
                free()
                text = table(rows) + "".join(f"\n\nNot enough memory for all variants: {case}." for case in too_large)
                figures = {"rows": rows, "too_large": too_large}
                write_report(arguments.out, name, config=config, figures=figures, text=text)


def measure(arguments: argparse.Namespace, batch_size: int, checkpointing: bool, *, root: Path) -> dict[str, Any]:
    """One batch size: speed in alternating blocks, then every variant's peak memory in a process of its own."""
    job = {**vars(arguments), "batch_size": batch_size, "checkpointing": checkpointing, "root": root}
    loops, spec = make_loops(job, VARIANTS)
    seconds, losses = take_turns(loops, spec, arguments)
    del loops
    free()
    timed = {name: values[arguments.block :] for name, values in seconds.items()}
    blocks = {
        name: [sum(values[start : start + arguments.block]) for start in range(0, len(values), arguments.block)]
        for name, values in timed.items()
    }
    row: dict[str, Any] = {
        "batch": batch_size,
        "checkpointing": checkpointing,
        "precision": spec.plan.precision,
        "images_per_second": {name: batch_size / statistics.median(values) for name, values in timed.items()},
        "times_faster": {
            "caching": ratio(blocks["textbook"], blocks["textbook, cached"]),
            "the rest": ratio(blocks["textbook, cached"], blocks["ours"]),
            "all": ratio(blocks["textbook"], blocks["ours"]),
        },
        "p95_step_ms": {name: 1000 * statistics.quantiles(values, n=20)[-1] for name, values in timed.items()},
        "largest_loss_difference": max(
            abs(a - b) / max(abs(b), 1e-9)
            for name in VARIANTS[1:]
            for a, b in zip(losses[name], losses["textbook"], strict=True)
        ),
        "peak_memory_mib": {name: peak_memory(job, name) for name in VARIANTS},
        "our_step_ms": step_costs(job),
    }
    return row


def take_turns(
    loops: dict[str, Loop], spec: TrainingSpec, arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and loss of every step by variant, as the plan executes; the first block is the warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    losses: dict[str, list[float]] = {name: [] for name in loops}
    with fixed_execution(spec.plan):
        for _ in range(-(-arguments.steps // arguments.block) + 1):
            for name, loop in loops.items():
                for _ in range(arguments.block):
                    begun = time.perf_counter()
                    losses[name].append(run_step(loop))
                    synchronize()
                    seconds[name].append(time.perf_counter() - begun)
    return seconds, losses


def ratio(slower: list[float], faster: list[float]) -> float:
    """Median over neighbouring blocks, so that a machine that is slow for a while is slow for both."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def make_loops(job: dict[str, Any], names: tuple[str, ...]) -> tuple[dict[str, Loop], TrainingSpec]:
    """The variants' loops, all starting from the same weights."""
    root: Path = job["root"]
    spec, base, dataset = make_spec(job)
    family = load_family(base.family)
    plan = TrainingPlan(spec)
    context = RunContext(
        dataset_dir=dataset,
        run_dir=root,
        output_dir=root,
        root=root,
        models_dirs=(),
        cache_dir=root / "cache",
        cache_max_bytes=None,
        max_image_pixels=10**9,
        emit=lambda event: None,
        should_stop=lambda: False,
    )
    loops: dict[str, Loop] = {}
    data = encode(spec, plan, context, base=base, family=family)
    loop, _, adapter = build(spec, plan, base=base, family=family, data=data)
    initial = initial_weights(adapter)
    if "ours" in names:
        loops["ours"] = loop
    for name in names:
        if name.startswith("textbook"):
            textbook = TextbookLoop(
                spec, plan, base=base, family=family, dataset_dir=dataset, initial=initial, cached="cached" in name
            )
            loops[name] = textbook
    return {name: loops[name] for name in names}, spec


def make_spec(job: dict[str, Any]) -> tuple[TrainingSpec, LoadableModel, Path]:
    """The spec of one measurement, its base model and its dataset."""
    root: Path = job["root"]
    settings = Settings(root=root, allow_downloads=False)
    family, resolution = job["family"], RESOLUTION[job["family"]]
    dataset = root / "dataset"
    if family == "tiny":
        base = find_loadable_model("influencerai/tiny-avatars", models_dirs=settings.models_dirs)
        write_character("ava", dataset)
    elif job["random_weights"]:
        base = RandomBase.of(family)
        random_dataset(dataset, resolution)
    else:
        base = find_loadable_model(family, models_dirs=settings.models_dirs)
        random_dataset(dataset, resolution)
    document = {
        "name": "bench",
        "modelName": base.name,
        "epochs": 1000,
        "learningRate": 1e-4,
        "batchSize": job["batch_size"],
        "resolution": resolution,
        "networkDim": 16,
        "networkAlpha": 8,
        "meta": {
            "precision": job["precision"],
            "gradientCheckpointing": job["checkpointing"],
            "lrScheduler": "constant",
            "warmupRatio": 0,
        },
    }
    spec = prepare_on(LoraConfig.parse(document), inspect_dataset(dataset), base=base, settings=settings).spec
    return spec, base, dataset


def run_step(loop: Loop) -> float:
    """One optimizer step; its loss, read as the textbook loop reads it."""
    outcome = loop.run_step()
    return outcome if isinstance(outcome, float) else float(outcome.loss)


def peak_memory(job: dict[str, Any], name: str) -> float:
    """Peak MiB of one variant: in a process of its own: reserved on the GPU, or resident on the CPU."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report_memory, args=(job, name, sender))
    child.start()
    sender.close()
    try:
        peak: float = receiver.recv()
    except EOFError:  # the variant alone does not fit
        peak = math.nan
    child.join()
    return peak


def _report_memory(job: dict[str, Any], name: str, sender: Any) -> None:
    """On the CPU without what the process holds before it loads anything: that is torch, the same for all."""
    before = 0.0 if torch.cuda.is_available() else resident_mib("VmRSS")
    loops, spec = make_loops(job, (name,))
    free()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    with fixed_execution(spec.plan):
        for _ in range(10):
            run_step(loops[name])
    peak = torch.cuda.max_memory_reserved() / 2**20 if torch.cuda.is_available() else resident_mib("VmHWM")
    sender.send(peak - before)


def resident_mib(field: str) -> float:
    """A figure of this process from /proc/self/status: VmRSS is resident now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def step_costs(job: dict[str, Any]) -> dict[str, float]:
    """Median milliseconds per part of our step."""
    loops, spec = make_loops(job, ("ours",))
    loop: Any = loops["ours"]
    times: dict[str, list[float]] = defaultdict(list)

    def timed(owner: Any, attribute: str, label: str) -> None:
        function = getattr(owner, attribute)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            synchronize()
            begun = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize()
            times[label].append(1000 * (time.perf_counter() - begun))
            return result

        setattr(owner, attribute, wrapper)

    backward = torch.autograd.backward
    timed(loop._data, "training_batch", "draw and batch the samples")
    timed(loop, "_weighted_losses", "forward and loss")
    timed(torch.autograd, "backward", "backward")
    timed(loop, "_clip_gradients", "clip gradients")
    timed(loop._optimizer, "step", "optimizer")
    timed(loop, "run_step", "whole step")
    with fixed_execution(spec.plan):
        for _ in range(25):
            loop.run_step()
    torch.autograd.backward = backward
    return {label: statistics.median(values[5:]) for label, values in times.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [
        (
            "| batch | checkpointing | precision | textbook img/s | textbook with caching | ours | caching | the rest "
            "| in all | peak MiB textbook / ours | largest loss difference |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speed, memory = row["images_per_second"], row["peak_memory_mib"]
        faster = row["times_faster"]
        lines.append(
            f"| {row['batch']} | {'on' if row['checkpointing'] else 'off'} | {row['precision']} "
            f"| {speed['textbook']:.2f} | {speed['textbook, cached']:.2f} | {speed['ours']:.2f} "
            f"| {faster['caching']:.2f} | {faster['the rest']:.2f} | **{faster['all']:.2f}** "
            f"| {memory['textbook']:.0f} / {memory['ours']:.0f} | {row['largest_loss_difference']:.1e} |"
        )
    for row in rows:
        lines += ["", f"Our step at batch {row['batch']}, median milliseconds:", "", "| part | ms |", "|---|---|"]
        lines += [f"| {label} | {value:.1f} |" for label, value in row["our_step_ms"].items()]
    return "\n".join(lines)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free() -> None:
    """Give back what is not used, so that what follows is measured alone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(0)


if __name__ == "__main__":
    main()
