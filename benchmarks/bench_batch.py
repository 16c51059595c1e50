"""What a batch costs beyond its trainings: wall time of `influencerai batch` over the sum of the training times.

Datasets x configs on the embedded model, in one process as a user starts it. The clock of this process stamps every
line that the command prints, so that the rest is told by stage: starting and checking, then for each training what it
does before its first step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from influencerai.demo.characters import MODEL_ID, list_characters, write_character

TARGET = 1.1
TRAINING = ("training", "exporting")
"""Stages that a result's training time counts: steps, validation, states, samples and files."""
START = "starting and checking all"
END = "ending"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=5)
    parser.add_argument("--configs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = write_batch(Path(folder), arguments)
        figures = measure(file)
        figures["again_seconds"] = measure(file)["wall_seconds"]
    config = {name: value for name, value in vars(arguments).items() if name != "out"}
    write_report(arguments.out, "batch", config=config, figures=figures, text=text_of(figures))


def write_batch(root: Path, arguments: argparse.Namespace) -> Path:
    """Datasets of sample characters, and a file that combines them with configs of different ranks."""
    characters = list_characters()
    names = [f"{characters[index % len(characters)]}-{index}" for index in range(arguments.datasets)]
    for name in names:
        write_character(name.partition("-")[0], root / "data" / name)
    document = {
        "defaults": {
            "modelName": MODEL_ID,
            "resolution": 128,
            "epochs": arguments.epochs,
            "batchSize": arguments.batch_size,
        },
        "datasets": [f"data/{name}" for name in names],
        "configs": [
            {"name": f"rank-{rank}", "networkDim": rank, "networkAlpha": rank}
            for rank in (4 * (index + 1) for index in range(arguments.configs))
        ],
    }
    file = root / "batch.yaml"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def measure(file: Path) -> dict[str, Any]:
    """Run the batch; seconds by stage, and the ratio."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "influencerai", "batch", str(file), "--json"]
    seconds: defaultdict[str, float] = defaultdict(float)
    stage, last, result = START, begun, {}
    with subprocess.Popen(command, cwd=file.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            now, document = time.perf_counter(), json.loads(line)
            seconds[stage] += now - last
            last = now
            if document["type"] == "training":
                stage = document["stage"] or END
            elif document["type"] == "result":
                result = document
    ended = time.perf_counter()
    seconds[stage] += ended - last
    if process.returncode:
        raise SystemExit(f"The batch ended with {process.returncode}.")
    training = sum(seconds[name] for name in TRAINING)
    reported = 60 * sum(row["minutes"] for row in result["trainings"])
    return {
        "trainings": len(result["trainings"]),
        "wall_seconds": ended - begun,
        "training_seconds": training,
        "reported_training_seconds": reported,
        "ratio": (ended - begun) / training if training else None,
        "seconds": dict(seconds),
    }


def text_of(figures: dict[str, Any]) -> str:
    summary = (
        f"{figures['trainings']} trainings: {figures['wall_seconds']:.1f} s on the clock, "
        f"{figures['training_seconds']:.1f} s of training, ratio {figures['ratio']:.3f} (target: at most {TARGET}). "
        f"By the results' own minutes the trainings took {figures['reported_training_seconds']:.1f} s. "
        f"The same command again, which trains nothing: {figures['again_seconds']:.1f} s."
    )
    lines = [
        summary,
        "",
        "| where the rest goes | seconds | per training |",
        "|---|---|---|",
    ]
    for name, seconds in figures["seconds"].items():
        if name not in TRAINING:
            lines.append(f"| {name} | {seconds:.2f} | {seconds / figures['trainings']:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
