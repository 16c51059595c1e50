"""Start-up time: `import influencerai` and `influencerai --help`, as processes."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import write_report

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import influencerai": [sys.executable, "-c", "import influencerai"],
    "influencerai --help": [str(Path(sys.executable).with_name("influencerai")), "--help"],
}
TARGETS = {"import influencerai": 0.3, "influencerai --help": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    seconds = {name: measure(command, runs=arguments.runs) for name, command in COMMANDS.items()}
    lines = ["| command | median s | slowest s | target s |", "|---|---|---|---|"]
    for name, values in seconds.items():
        target = TARGETS.get(name, "")
        lines.append(f"| `{name}` | {statistics.median(values):.3f} | {max(values):.3f} | {target} |")
    write_report(
        arguments.out,
        "start",
        config={"runs": arguments.runs},
        figures={"seconds": seconds},
        text="\n".join(lines),
    )


def measure(command: list[str], *, runs: int) -> list[float]:
    """Wall-clock seconds of each run, after one that warms the file cache."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - begun)
    return found


if __name__ == "__main__":
    main()
