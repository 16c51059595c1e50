"""Programs for tests that deploy: started as images start them, with one token, and all of them ended with the test."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
"""First on the path, as in the images."""
LOOPBACK = "127.0.0.2"
"""For 127.0.0.1 Ray would put the address that others reach this machine by."""
STOP_SECONDS = 90.0


@dataclass(kw_only=True)
class Programs:
    """Processes that a test has started, which write to one log; all are ended with it, the newest first.

    Args:
        folder: for the log, and for what Ray writes.
        environment: of every process.
    """

    folder: Path
    environment: Mapping[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(
        self, arguments: Sequence[str], *, inside: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a program of this environment; `inside` is what it is to be run by."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*inside, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**self.environment, **environment},
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def run(self, arguments: Sequence[str], **environment: str) -> str:
        """Run a program to its end; what it has written to standard output.

        Raises:
            AssertionError: it has failed.
        """
        own = {**self.environment, **environment}
        done = subprocess.run(arguments, cwd=self.folder, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
        """Ask a program to end, and wait for it; kill it where that takes too long.

        Raises:
            AssertionError: it had to be killed.
        """
        self.started.remove(process)
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"{process.args!r} did not end:\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of the log, for the message of a failure."""
        return self.log.read_text(errors="replace")[-6000:]


@contextmanager
def programs(**environment: str) -> Iterator[Programs]:
    """Programs that share a new token and a folder for Ray, whose sockets need a short name."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("INFLUENCERAI_", "RAY_"))}
    own["PATH"] = f"{PROGRAMS}:{own['PATH']}"
    with tempfile.TemporaryDirectory(prefix="d", ignore_cleanup_errors=True) as folder:
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder}
        opened = Programs(folder=Path(folder), environment={**own, **given, "OMP_NUM_THREADS": "1", **environment})
        try:
            yield opened
        finally:
            for process in reversed([*opened.started]):
                opened.end(process)


def free_port(host: str = LOOPBACK) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_for_port(host: str, port: int, *, seconds: float = 60.0) -> None:
    """Return when something listens there.

    Raises:
        TimeoutError: nothing does in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Nothing listens on {host}:{port}.") from None
        time.sleep(0.1)
