"""The demo's server: `influencerai serve` as a child process, stopped together with every process it started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from influencerai.client import InfluencerAIClient
from influencerai.demo.run.view import DemoView
from influencerai.errors import DependencyMissingError, InfluencerAIError
from influencerai.interruption import EndedBySignal
from influencerai.progress.text import short_path, visible

READY_SECONDS = 180.0
STOP_SECONDS = 90.0
"""More than the server itself allows running trainings and Ray."""
_SECONDS_BETWEEN_LOOKS = 0.2


class DemoServer:
    """One process with Ray, Serve and the Ray runner, on a free port, over a root and a database of its own."""

    def __init__(self, root: Path, *, log: Path, threads: int) -> None:
        self.root = root
        self.log = log
        self.url = ""
        """Set when it is ready."""
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process, ready or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, without waiting for it.

        Raises:
            InfluencerAIError: root or log cannot be written.
        """
        command = [sys.executable, "-m", "influencerai", "serve", "--json", "--port", "0", "--host", "127.0.0.1"]
        database = f"sqlite:///{self.root.resolve() / '.influencerai' / 'influencerai.db'}"
        command += ["--auth", "development", "--runner", "ray", "--root", str(self.root), "--database-url", database]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    start_new_session=True,  # Ctrl-C is for the demo, which then stops the server
                )
        except OSError as error:
            raise InfluencerAIError(
                f"{error.filename or self.root} cannot be written: {error.strerror or error}.",
                remedy="Name a folder that you may write to by --out.",
            ) from error

    def wait_until_ready(self) -> None:
        """Return when it accepts jobs and a node can train them; sets `url`.

        Raises:
            InfluencerAIError: it has exited, or is not ready in time; names the reason and its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        missing = "it has not printed its address"
        while not (ready := self._printed("ready")):
            self._check_time(deadline, missing)
        self.url = str(ready["url"])
        with InfluencerAIClient(self.url) as client:
            while (found := client.readiness())["status"] != "ready":
                missing = "; ".join(
                    f"{name}: {check['detail']}" for name, check in found["checks"].items() if check["status"] != "ok"
                )
                self._check_time(deadline, missing)

    async def watch(self) -> None:
        """Run until the server exits.

        Raises:
            InfluencerAIError: it has exited, though nothing asked it to.
        """
        while True:
            self._check_alive()
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    def stop(self) -> None:
        """Let it save the state of its trainings and exit; a signal meanwhile, or the timeout, kills it."""
        if self._process is None:
            return
        try:
            if self.is_running:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._end_rest()

    def _end_rest(self) -> None:
        """Kill the rest of its process group: Ray's services, which otherwise notice seconds later that it has exited.

        Ray's workers have groups of their own; they end when Ray's services do, and trainings when their worker does.
        """
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _environment(self) -> dict[str, str]:
        """This process's environment, without another cluster's address and without rate limits."""
        own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        fixed = {"THREADS": str(self._threads), "WORKERS": "1", "SHARE_GPUS": "true", "RATE_LIMITS": "false"}
        return {**own, **{f"INFLUENCERAI_{name}": value for name, value in fixed.items()}}

    def _printed(self, type: str) -> dict[str, Any] | None:
        """The document of this type in the server's output, or None."""
        for line in self.log.read_text("utf-8", errors="replace").splitlines(keepends=True):
            if line.startswith(f'{{"type": "{type}"') and line.endswith("\n"):
                found: dict[str, Any] = json.loads(line)
                return found
        return None

    def _check_time(self, deadline: float, missing: str) -> None:
        self._check_alive()
        if time.monotonic() > deadline:
            raise InfluencerAIError(
                f"The server is not ready after {READY_SECONDS:g} s: {missing}.", remedy=self._where_to_look()
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _check_alive(self) -> None:
        assert self._process is not None
        if (code := self._process.poll()) is None:
            return
        printed = self._printed("error") or {}
        message = f"The server has exited: {printed.get('message') or f'its exit code is {code}'}"
        if printed.get("code") == DependencyMissingError.code:
            raise missing_for_server(message)
        raise InfluencerAIError(message, remedy=" ".join(filter(None, (printed.get("remedy"), self._where_to_look()))))

    def _where_to_look(self) -> str:
        return f"Its log is {short_path(self.log)}. `influencerai demo --local` needs no server."


@contextmanager
def running_server(server: DemoServer, *, interruption: EndedBySignal, view: DemoView) -> Iterator[DemoServer]:
    """The server until the end of the block; none of its processes keeps running after it.

    Raises:
        InfluencerAIError: it does not start.
    """
    try:
        with interruption.held():
            server.start()
        server.wait_until_ready()
        yield server
    finally:
        try:
            if server.is_running:
                view.stopping()
        finally:
            server.stop()


def missing_for_server(message: str) -> DependencyMissingError:
    """The error for a missing package of the server."""
    return DependencyMissingError(
        visible(message),
        remedy="Run: pip install 'influencerai[train,serve]'. Or train without a server: influencerai demo --local.",
    )
