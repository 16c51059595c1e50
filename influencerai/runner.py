"""Runner: what makes submitted jobs train; and the inline runner, with workers as processes of this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import suppress
from typing import Protocol

from influencerai.settings import Settings, child_environment

_RESTART_SECONDS = (1, 2, 5, 10, 30)
_SETTLED_SECONDS = 60.0
_STOP_MARGIN_SECONDS = 15.0
_log = logging.getLogger(__name__)


class Runner(Protocol):
    """Something that claims jobs and has them trained."""

    async def start(self) -> None:
        """Begin; returns at once."""
        ...

    async def stop(self) -> None:
        """End, with every running job's state saved and the job given back to the queue."""
        ...


class InlineRunner:
    """Keeps `settings.workers` worker processes running here."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self.processes: dict[int, asyncio.subprocess.Process] = {}
        """By place, the workers that run now."""

    async def start(self) -> None:
        self._keepers = [asyncio.create_task(self._keep(place)) for place in range(self._settings.workers)]

    async def stop(self) -> None:
        self._stopping.set()
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.terminate()
        deadline = self._settings.cancel_grace_seconds + _STOP_MARGIN_SECONDS
        _, late = await asyncio.wait(self._keepers, timeout=deadline) if self._keepers else ((), ())
        for process in self.processes.values() if late else ():
            with suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self, place: int) -> None:
        """Start a worker whenever there is none, at growing distances while it does not live long."""
        failures = 0
        while not self._stopping.is_set():
            begun = asyncio.get_running_loop().time()
            try:
                ending = f"A worker has ended (exit code {await self._work(place)})"
            except OSError as error:
                ending = f"No worker can be started: {error}"
            if self._stopping.is_set():
                return
            settled = asyncio.get_running_loop().time() - begun > _SETTLED_SECONDS
            failures = 0 if settled else failures + 1
            delay = _RESTART_SECONDS[min(failures, len(_RESTART_SECONDS) - 1)]
            _log.error("%s; another one starts in %s s.", ending, delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _work(self, place: int) -> int:
        """Start a worker, and wait for its end; returns its exit code.

        Raises:
            OSError: no process can be started.
        """
        process = await self._spawn()
        self.processes[place] = process
        try:
            if self._stopping.is_set():
                process.terminate()
            return await process.wait()
        finally:
            del self.processes[place]

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "influencerai.worker",
            stdin=asyncio.subprocess.PIPE,
            env=child_environment(reaches_services=True),
        )
        assert process.stdin is not None
        document = {**self._settings.worker_document(), "threads": self._settings.job_threads}
        process.stdin.write(json.dumps(document).encode() + b"\n")
        with suppress(ConnectionError):
            await process.stdin.drain()
        return process
