"""The servers that bench_api measures, as processes of their own: their readiness, memory and CPU time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PROGRAM = str(Path(sys.executable).with_name("influencerai"))
_ROLES = ("ray::ServeReplica", "ray::ProxyActor", "ray::ServeController", "raylet", "gcs_server")
"""Process titles of Ray."""


class Server:
    """`influencerai serve` as a process of its own session."""

    def __init__(self, root: Path, options: tuple[str, ...]) -> None:
        self.port = free_port()
        self._log = (root / "server.log").open("ab")
        command = [PROGRAM, "serve", "--root", str(root), "--port", str(self.port), *options]
        begun = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log, start_new_session=True)
        while not answers(self.port, "/readyz"):
            if self.process.poll() is not None or time.perf_counter() - begun > 120:
                raise RuntimeError((root / "server.log").read_text())
            time.sleep(0.02)
        self.ready_seconds = time.perf_counter() - begun
        self.stop_seconds = 0.0

    def stop(self) -> None:
        begun = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.stop_seconds = time.perf_counter() - begun
        self._log.close()

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time that this server's processes have spent so far, by role."""
        spent: dict[str, float] = defaultdict(float)
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                spent[role(pid)] += ticks / os.sysconf("SC_CLK_TCK")
        return spent

    def memory_mib(self) -> float:
        """Proportional set size of every process that the server has started, and its own."""
        return sum(proportional_kib(pid) for pid in descendants(self.process.pid)) / 1024


@contextlib.contextmanager
def server(root: Path, *options: str) -> Iterator[Server]:
    started = Server(root, options)
    try:
        yield started
    finally:
        started.stop()


@contextlib.contextmanager
def bare(root: Path) -> Iterator[int]:
    port = free_port()
    url = f"sqlite:///{root / '.influencerai' / 'influencerai.db'}"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare_api", str(port), url])
    while not answers(port, "/openapi.json"):
        time.sleep(0.05)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                parents[int(entry)] = int(fields[1])
    found = [pid]
    for candidate in found:
        found += [child for child, parent in parents.items() if parent == candidate]
    return found


def proportional_kib(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1])
    return 0.0


def role(pid: int) -> str:
    """Role of a process in the server: our own program, or a part of Ray."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    if PROGRAM in command:
        return "influencerai serve"
    return next((name for name in _ROLES if name in command), "the rest of Ray")
