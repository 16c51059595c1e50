"""A newcomer: `git clone`, then `make demo`, on a machine that has nothing yet, and what each part of it takes.

Packages are fetched first and installed from there, so that downloads, which the line decides, stand apart.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks.report import write_report

SOURCE = Path(__file__).resolve().parent.parent
TARGET_SECONDS = 600
PARTS = ("clone", "downloads", "installation", "demo")
SECONDS_BETWEEN_SAMPLES = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    write_report(arguments.out, "newcomer", config={}, figures=figures, text=table(figures))


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of each part, bytes of the downloads, of memory and of disk, and the files that the demo made."""
    home, wheels, project = (folder / name for name in ("home", "wheels", "influencerai"))
    home.mkdir()
    fresh = {key: value for key, value in os.environ.items() if not key.startswith(("INFLUENCERAI_", "VIRTUAL_ENV"))}
    fresh |= {"HOME": str(home), "PIP_NO_CACHE_DIR": "1"}
    offline = fresh | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_EXTRA_INDEX_URL": ""}
    seconds = {"clone": timed(["git", "clone", "--quiet", str(SOURCE), str(project)], cwd=folder, environment=fresh)}
    seconds["downloads"] = timed(downloads(project, wheels), cwd=project, environment=fresh)
    interpreter = f"PYTHON={sys.executable}"
    seconds["installation"] = timed(["make", "setup", interpreter], cwd=project, environment=offline)
    with PeakMemory(home) as memory:
        seconds["demo"] = timed(["make", "demo", interpreter], cwd=project, environment=offline)
    made = project / "demo-output"
    return {
        "seconds": seconds,
        "downloaded_bytes": sum(file.stat().st_size for file in wheels.iterdir()),
        "packages": len([*wheels.iterdir()]),
        "memory_bytes": memory.bytes,
        "disk_bytes": sum(file.lstat().st_blocks * 512 for file in project.rglob("*")),
        "made": sorted(str(file.relative_to(project)) for file in (*made.glob("*/*-final.*"), *made.glob("*/*.png"))),
    }


class PeakMemory(threading.Thread):
    """The most memory that processes with this home hold at a time, in bytes; what they share is counted once."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self._home = str(home)
        self._has_ended = threading.Event()
        self.bytes = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self.join()

    def run(self) -> None:
        while not self._has_ended.wait(SECONDS_BETWEEN_SAMPLES):
            self.bytes = max(self.bytes, sum(self._held(process) for process in psutil.process_iter()))

    def _held(self, process: psutil.Process) -> int:
        with suppress(psutil.Error):
            if process.environ().get("HOME") == self._home:
                return int(process.memory_full_info().pss)
        return 0


def downloads(project: Path, wheels: Path) -> Sequence[str]:
    """All that `make setup` installs, and what builds the project itself."""
    builders = tomllib.loads((project / "pyproject.toml").read_text())["build-system"]["requires"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    return [*pip, "--dest", str(wheels), "--constraint", "constraints.txt", *builders, "editables", ".[all,dev]"]


def timed(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment, check=True)
    return time.perf_counter() - begun


def table(figures: Mapping[str, Any]) -> str:
    seconds = figures["seconds"]
    total = sum(seconds.values())
    size = f"{figures['packages']} files, {figures['downloaded_bytes'] / 1e6:.0f} MB"
    notes = {"downloads": size, "demo": ", ".join(f"`{name}`" for name in figures["made"])}
    used = f"{figures['memory_bytes'] / 1e9:.1f} GB of memory at most, {figures['disk_bytes'] / 1e9:.1f} GB of disk"
    lines = ["| part | s | share | |", "|---|---|---|---|"]
    lines += [
        f"| {part} | {seconds[part]:.0f} | {seconds[part] / total:.0%} | {notes.get(part, '')} |" for part in PARTS
    ]
    lines.append(f"| all of it | {total:.0f} | | target: at most {TARGET_SECONDS} |")
    return "\n".join([*lines, "", f"It takes {used}."])


if __name__ == "__main__":
    main()
