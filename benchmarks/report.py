"""Report of a benchmark: figures, configuration, hardware, versions, date."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from influencerai.models.device import cpu_name

PACKAGES = ("torch", "diffusers", "transformers", "peft", "bitsandbytes", "influencerai")


def environment() -> dict[str, Any]:
    """Hardware, versions and date of this run."""
    gpu = None
    if torch.cuda.is_available():
        gpu = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def write_report(out: Path, name: str, *, config: dict[str, Any], figures: dict[str, Any], text: str) -> None:
    """`<name>.json` for machines and `<name>.md` for people in the folder `out`; the text also to the terminal."""
    out.mkdir(parents=True, exist_ok=True)
    around = environment()
    document = {"environment": around, "config": config, "figures": figures}
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    machine = around["gpu"] or f"{around['cores']} cores of {around['cpu']}"
    versions = ", ".join(f"{package} {number}" for package, number in around["versions"].items())
    head = f"# {name}\n\n{around['date']} · {machine} · {versions}\n\n"
    settings = "```json\n" + json.dumps(config, indent=1) + "\n```\n"
    (out / f"{name}.md").write_text(f"{head}{text}\n\n{settings}", encoding="utf-8")
    print(text)
