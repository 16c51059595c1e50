"""JobProcess: the worker's end of an attempt's process, which it can always kill; ForkServer: what starts it fast."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from influencerai.domain import TrainingSpec
from influencerai.domain.wire import WireModel
from influencerai.errors import TrainingError
from influencerai.job_process.messages import PROCESS_MESSAGE, Go, ProcessMessage, Stop, TrainingRequest, to_line
from influencerai.settings import child_environment

PRELOADED = (
    "torch",
    "influencerai.job_process.entry",
    "influencerai.train.diffusers_backend",
    "influencerai.models.families.sd15",
    "influencerai.models.families.sdxl",
    "pytorch_optimizer",
    "torch._dynamo",
)
"""Modules that a training imports, the heaviest first."""
HELD_BACK = ("bitsandbytes",)
"""Importing it on a GPU starts CUDA, which no fork survives; a job process that uses it imports it itself."""
LOG_FILE = "attempt.log"
LOG_BYTES = 2**20
"""A longer log is truncated by the next attempt."""
LONGEST_MESSAGE = 2**26
_SECONDS_TO_END = 1.0
_LOOKS = 25
_SECONDS_TO_SAY_IT = 10.0
"""Time for the other ranks to report an error after one rank has ended."""
_WITHOUT_CUDA = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Lets torch look for GPUs without starting CUDA."""
_QUIET = {"TRANSFORMERS_VERBOSITY": "error"}
"""Notices at import are not for users."""


class ForkServer:
    """A process with the trainer imported, from which attempts are forked.

    It inherits standard error, the environment and nothing else, runs in a session of its own, and ends with this
    process, however that ends; its children end with it. Not for use from several threads.
    """

    def __init__(self, *, preload: Sequence[str] = PRELOADED, held_back: Sequence[str] = HELD_BACK) -> None:
        self._preload = tuple(preload)
        self._held_back = tuple(held_back)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    async def has_ended(self) -> bool:
        """Whether it is gone, or going."""
        for _ in range(_LOOKS):
            if self.pid is None:
                return True
            await asyncio.sleep(0.02)
        return False

    def warm(self) -> None:
        """Start it, or start it again when it has ended; returns at once, while it imports."""
        if self.pid is not None:
            return
        self.close()
        ours, theirs = socket.socketpair()
        arguments = (theirs.fileno(), os.getpid(), self._preload, self._held_back)
        program = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            f"from influencerai.job_process.fork_server import main; main{arguments!r}"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**_QUIET, **child_environment(reaches_services=False), **_WITHOUT_CUDA},
            )
        self._control = ours

    def fork(self, fds: Sequence[int]) -> None:
        """Have a child forked that is given copies of `fds`; see `fork_server`.

        Raises:
            OSError: the server has just ended.
        """
        self.warm()
        assert self._control is not None
        socket.send_fds(self._control, [b"f"], list(fds))

    def close(self) -> None:
        """End it, and every attempt that still runs."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:  # it is still importing
                self._process.kill()
                self._process.wait()
        self._control = self._process = None


class JobProcess:
    """A running attempt. Messages and the exit are awaited on the event loop that started it."""

    def __init__(self, *, pid: int, orders: _Connection, events: _Connection, status: _Connection) -> None:
        self.pid = pid
        self._orders = orders
        self._events = events
        self._exit = asyncio.create_task(self._watch(status))

    @classmethod
    async def start(cls, order: TrainingRequest, *, fork_server: ForkServer) -> Self:
        """Fork a child and give it its order; returns when it runs.

        Its output goes to `attempt.log` in the order's run folder.

        Raises:
            TrainingError, OSError: no process can be started on this machine, whatever the job.
        """
        for _ in range(2):
            if started := await cls._start(order, fork_server):
                return started
            if not await fork_server.has_ended():
                break
        raise TrainingError("No training process can be started here.", remedy="See the worker's standard error.")

    async def messages(self) -> AsyncIterator[ProcessMessage]:
        """Messages of the process, until it has ended. To be iterated once, to the end."""
        while (line := await self._events.reader.readline()).endswith(b"\n"):
            yield PROCESS_MESSAGE.validate_json(line)
        self._events.writer.close()

    async def go(self, spec: TrainingSpec) -> None:
        """Send `Go` with `spec`; does nothing if the process has ended."""
        await self._orders.send(Go(spec=spec))

    async def stop(self, *, is_cancel: bool = False) -> None:
        """Send `Stop`: the process saves its state and ends; it publishes its last epochs if that cancels the job.

        Does nothing if the process has ended.
        """
        await self._orders.send(Stop(is_cancel=is_cancel))

    def kill(self) -> None:
        """Kill the process and everything that it has started."""
        if not self._exit.done():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit code once it is gone; a signal's number below zero where one ended it."""
        return await asyncio.shield(self._exit)

    @classmethod
    async def _start(cls, order: TrainingRequest, fork_server: ForkServer) -> Self | None:
        """None where the server forks no more. Closing our ends, on any error, ends a child that has started."""
        log = await asyncio.to_thread(_open_log, order.run_dir)
        ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        try:
            fork_server.fork([*(end.fileno() for end in theirs), log])
        except OSError:
            for end in ours:
                end.close()
            return None
        finally:
            os.close(log)
            for end in theirs:
                end.close()
        orders, events, status = [await _Connection.open(end) for end in ours]
        try:
            if not (line := await status.reader.readline()):
                raise EOFError
            child = cls(pid=int(line), orders=orders, events=events, status=status)
            await orders.send(order)
        except BaseException as error:
            for connection in (orders, events, status):
                connection.writer.close()
            if isinstance(error, EOFError):
                return None
            raise
        return child

    async def _watch(self, status: _Connection) -> int:
        try:
            if line := await status.reader.readline():
                return int(line)
            with suppress(ProcessLookupError):  # the server is dead, and the child with it, or about to be
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(ConnectionError):
                await self._orders.reader.read()
            return -signal.SIGKILL
        finally:
            for connection in (self._orders, status):
                connection.writer.close()


class JobProcessGroup:
    """The ranks of one attempt, a process each: rank 0 sends the messages, and all end together."""

    def __init__(self, first: JobProcess, followers: Sequence[JobProcess]) -> None:
        self._first = first
        self._followers = followers
        self.pid = first.pid
        self.messages = first.messages
        self.go = first.go
        self.stop = first.stop
        self._watch = asyncio.create_task(self._end_together())

    @classmethod
    async def start(cls, order: TrainingRequest, *, fork_server: ForkServer) -> Self:
        """Fork as many as the order says, each with its place; see `JobProcess.start`.

        Raises:
            TrainingError, OSError: not all of them can be started on this machine, whatever the job.
        """
        shared = {"meeting_port": _free_port(), "threads": max(1, order.threads // order.world_size)}
        children: list[JobProcess] = []
        try:
            for rank in range(order.world_size):
                own = order.model_copy(update={**shared, "rank": rank})
                children.append(await JobProcess.start(own, fork_server=fork_server))
        except BaseException:
            for child in children:
                child.kill()
            raise
        return cls(children[0], children[1:])

    def kill(self) -> None:
        """End them at once."""
        for child in (self._first, *self._followers):
            child.kill()

    async def wait(self) -> int:
        """The exit code of the first once all are gone: without it the others have nothing to do."""
        code = await self._first.wait()
        for child in self._followers:
            child.kill()
            await child.wait()
        self._watch.cancel()
        return code

    async def _end_together(self) -> None:
        """Rank 0 would otherwise wait at the rendezvous for a rank that has exited."""
        codes = [asyncio.create_task(child.wait()) for child in self._followers]
        for ended in asyncio.as_completed(codes):
            if await ended:
                await asyncio.sleep(_SECONDS_TO_SAY_IT)
                self.kill()


async def start_training(order: TrainingRequest, *, fork_server: ForkServer) -> JobProcess | JobProcessGroup:
    """The process, or the processes, that carry out the order.

    Raises:
        TrainingError, OSError: no process can be started on this machine, whatever the job.
    """
    kind = JobProcess if order.world_size == 1 else JobProcessGroup
    return await kind.start(order, fork_server=fork_server)


class _Connection:
    """The worker's end of a pair of sockets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        return cls(*await asyncio.open_connection(sock=end, limit=LONGEST_MESSAGE))

    async def send(self, message: WireModel) -> None:
        with suppress(ConnectionError):
            self.writer.write(to_line(message))
            await self.writer.drain()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open_log(run_dir: Path) -> int:
    """A descriptor to append to; a disk that refuses it will stop the attempt itself, which can say so."""
    path = run_dir / LOG_FILE
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        if os.fstat(fd).st_size > LOG_BYTES:
            os.truncate(fd, 0)
        return fd
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
