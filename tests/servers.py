"""Real servers for tests: `influencerai serve` as a process of its own, waited for, asked over HTTP, and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONTRACT_PORT = 3001
"""Where every example of the API's reference looks for the server."""
START_SECONDS = 60.0
STOP_SECONDS = 60.0
_ANNOUNCED = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server, its root, and the file that it logs to."""

    port: int
    root: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, *, tenant: str | None = "tenant_demo", **headers: str
    ) -> Answer:
        """Send one request, its body as JSON; keyword names are header names with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if tenant is not None:
            sent["x-tenant-id"] = tenant
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                return _answer(found.status, found.headers, found.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read())

    def wait_for_job(self, id: str, *, seconds: float, tenant: str = "tenant_demo") -> dict[str, Any]:
        """The job once it has ended.

        Raises:
            AssertionError: it has not ended in time; shows the job and the server's log.
        """
        deadline = time.monotonic() + seconds
        while True:
            job: dict[str, Any] = self.ask("GET", f"/jobs/{id}", tenant=tenant).document
            if job["status"] in ("completed", "failed"):
                return job
            assert time.monotonic() < deadline, f"{job}\n{self.log_tail()}"
            time.sleep(0.1)

    def log_tail(self) -> str:
        """The end of the log, for the message of a failure."""
        return self.log.read_text(errors="replace")[-6000:]


@contextmanager
def serve(
    folder: Path,
    *,
    runner: Literal["ray", "inline", "none"] = "none",
    port: int = 0,
    ray: bool = False,
    **settings: Any,
) -> Iterator[Server]:
    """A server over the root `folder` until the end of the block; `settings` go into its environment.

    With `ray` the API is on Ray Serve, else in the process itself.

    Raises:
        AssertionError: it does not start, or does not end when interrupted; with its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    command = [str(Path(sys.executable).with_name("influencerai")), "serve", "--runner", runner]
    command += [] if ray else ["--no-ray"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--root", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_environment(settings),
            start_new_session=True,
        )
    try:
        server = Server(port=_announced_port(process, log), root=folder, log=log)
        _wait_until_ready(server)
        yield server
    finally:
        _end(process, log)


@contextmanager
def serve_on_contract_port(folder: Path, **options: Any) -> Iterator[Server]:
    """Like `serve`, on the port that the API's reference names, or on a free one where that is taken.

    Beside other processes of tests it is left to docs/train-on-a-server.md, whose commands name it too.
    """
    with ExitStack() as stack:
        if "PYTEST_XDIST_WORKER" in os.environ:
            yield stack.enter_context(serve(folder, **options))
            return
        try:
            server = stack.enter_context(serve(folder, port=CONTRACT_PORT, **options))
        except AssertionError:
            server = stack.enter_context(serve(folder, **options))
        yield server


def _environment(settings: Mapping[str, Any]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("INFLUENCERAI_")}
    fixed = {"allow_downloads": False, "threads": 1, "device": "cpu", "min_free_mib": 0, "poll_seconds": 0.1}
    given = {
        f"INFLUENCERAI_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in {**fixed, **settings}.items()
    }
    return {**own, **given, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _announced_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while not (found := _ANNOUNCED.search(log.read_text(errors="replace"))):
        text = f"The server has not started (exit code {process.poll()}):\n{log.read_text(errors='replace')}"
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return int(found[1])


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (answer := server.ask("GET", "/readyz", tenant=None)).status != 200:
        assert time.monotonic() < deadline, f"{answer.body!r}\n{server.log_tail()}"
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes], log: Path) -> None:
    """Interrupt it, as Ctrl-C does; kill it only where that does not end it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise AssertionError(f"The server did not end when interrupted:\n{log.read_text()[-6000:]}") from None


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    return Answer(status=status, headers={name.lower(): value for name, value in headers.items()}, body=body)
