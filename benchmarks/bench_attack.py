"""Attacks of one tenant: what another tenant notices, how the server's memory stands, before and after a change.

`--checkout` runs the server of another checkout, such as one that `git worktree add` has made of an older commit;
`--name` then names its figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.attacks import pictures, requests
from benchmarks.report import write_report
from benchmarks.servers import PROGRAM, Server, server
from tests.databases import start_server

ATTACKS: dict[str, Callable[[Server], Coroutine[Any, Any, dict[str, Any]]]] = {
    "pictures": pictures.run,
    "requests": requests.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", choices=[*ATTACKS, []], help="by default all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--name", default="after", help="of this measurement; the others of the results stay")
    parser.add_argument("--checkout", type=Path, help="of the server; by default this one")
    parser.add_argument("--postgres", action="store_true", help="a database of Postgres, which it starts")
    arguments = parser.parse_args()
    if arguments.checkout:
        os.environ["PYTHONPATH"] = str(arguments.checkout)
    figures = earlier(arguments.out / "attack.json")
    for name in arguments.attacks or ATTACKS:
        with (
            tempfile.TemporaryDirectory() as folder,
            database(arguments.postgres) as options,
            server(Path(folder), "--no-ray", "--runner", "none", *options) as started,
        ):
            figures.setdefault(name, {})[arguments.name] = asyncio.run(ATTACKS[name](started))
    config = {"attacks": list(figures), "checkout": "this one" if not arguments.checkout else arguments.name}
    write_report(arguments.out, "attack", config=config, figures=figures, text=text(figures))


@contextmanager
def database(is_postgres: bool) -> Iterator[list[str]]:
    """Options of the server for its database."""
    if not is_postgres:
        yield []
        return
    folder = tempfile.mkdtemp(prefix="db")
    started = start_server(Path(folder) / "postgres")
    option = ["--database-url", started.get_uri()]
    try:
        subprocess.run([PROGRAM, "db", "upgrade", *option], check=True, cwd=folder)
        yield option
    finally:
        started.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def earlier(path: Path) -> dict[str, Any]:
    """The figures of earlier measurements."""
    found: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    return found


def text(figures: dict[str, Any]) -> str:
    """A table per attack and measurement: p95 of the victim's calls, and how often of its time at rest."""
    parts = []
    for attack, measured in figures.items():
        parts.append(f"## {attack}\n")
        for name, found in measured.items():
            parts.append(f"### {name}\n\n{table(found)}\n")
    return "\n".join(parts)


def table(found: dict[str, Any]) -> str:
    """One measurement."""
    phases = list(found["victim"])
    rest = found["victim"][phases[0]]
    lines = [
        f"| p95 in ms (times that at rest), failures of calls | {' | '.join(phases)} |",
        "|---" * (len(phases) + 1) + "|",
    ]
    for call in rest:
        cells = []
        for phase in phases:
            summary = found["victim"][phase][call]
            times = summary["p95_ms"] / max(rest[call]["p95_ms"], 1.0)
            cells.append(f"{summary['p95_ms']:,.0f} ({times:.1f}x), {summary['failures']} of {summary['count']}")
        lines.append(f"| {call} | {' | '.join(cells)} |")
    memory = ", ".join(f"{name} {value}" for name, value in found["memory_mib"].items())
    return "\n".join(lines) + f"\n\nMemory of the server in MiB: {memory}.\n"


if __name__ == "__main__":
    main()
