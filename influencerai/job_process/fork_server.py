"""The fork server's process: it imports the trainer once, and forks a child from that for every attempt.

Unlike `multiprocessing`'s, it never imports the program's main module, and its children cannot outlive it, nor it
the worker. It starts no thread, since only what is single-threaded can be forked.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue

from influencerai.domain import TrainingFailure
from influencerai.job_process.channel import Channel
from influencerai.job_process.messages import (
    WORKER_MESSAGE,
    Failed,
    ProcessMessage,
    Stop,
    TrainingRequest,
    WorkerMessage,
    to_line,
)

FDS_PER_CHILD = 4
"""Descriptors in a request: orders to read, events to write, the status to write, the log."""
WORKER_IS_GONE = 3
"""Exit code of a child that nobody listens to any more."""
SECONDS_BETWEEN_LOOKS = 0.5
"""How often the server looks whether its parent lives; mostly it hears of its end at once."""
_PR_SET_PDEATHSIG = 1


def main(control_fd: int, parent: int, preload: Sequence[str], held_back: Sequence[str]) -> None:
    """Serve requests on the socket `control_fd` until it is closed or the process `parent` is gone.

    Args:
        control_fd: a request is one byte with FDS_PER_CHILD descriptors.
        parent: process id.
        preload: modules to import first.
        held_back: modules that must not be imported by them.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker decides when an attempt ends
    _preload(preload, held_back=held_back, parent=parent)
    server = _Server(socket.socket(fileno=control_fd), parent=parent)
    try:
        server.serve()
    finally:
        server.kill_children()
        os._exit(0)


def _preload(names: Sequence[str], *, held_back: Sequence[str], parent: int) -> None:
    sys.modules.update(dict.fromkeys(held_back))  # type: ignore[arg-type] # None makes an import fail
    for name in names:
        if os.getppid() != parent:
            os._exit(0)
        try:
            importlib.import_module(name)
        except ImportError:  # the child that needs it will say so
            traceback.print_exc()
    for name in held_back:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # children share these pages until they write to them


class _Server:
    def __init__(self, control: socket.socket, *, parent: int) -> None:
        self._control = control
        self._parent = parent
        self._pid = os.getpid()
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._statuses: dict[int, socket.socket] = {}
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self._selector.select(SECONDS_BETWEEN_LOOKS)}
            if os.getppid() != self._parent:
                return
            if self._wake_reader in ready:
                self._wake_reader.recv(4096)
                self._reap()
            if self._control in ready:
                try:
                    request, fds, _, _ = socket.recv_fds(self._control, 1, FDS_PER_CHILD)
                except ConnectionError:
                    return
                if not request:
                    return
                self._fork(fds)

    def kill_children(self) -> None:
        for pid in self._statuses:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            with suppress(ProcessLookupError):  # what the child may have left running
                os.killpg(pid, signal.SIGKILL)
            if channel := self._statuses.pop(pid, None):
                with channel, suppress(OSError):
                    channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _fork(self, fds: list[int]) -> None:
        """Fork a child; where that fails, the worker hears it from the closed descriptors."""
        try:
            if len(fds) == FDS_PER_CHILD:
                for fd in fds:
                    os.set_inheritable(fd, False)
                pid = os.fork()
                if not pid:
                    self._become_child(fds)
                self._statuses[pid] = socket.socket(fileno=os.dup(fds[2]))
        except OSError:
            traceback.print_exc()
        finally:
            for fd in fds:
                os.close(fd)

    def _become_child(self, fds: list[int]) -> None:
        """Turn this process, a fork of the server, into an attempt. Does not return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            if self._libc is not None:
                self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != self._pid:
                    os._exit(WORKER_IS_GONE)
            self._selector.close()
            for inherited in (self._control, self._wake_reader, self._wake_writer, *self._statuses.values()):
                inherited.close()
            orders, events, status = (socket.socket(fileno=fd) for fd in fds[:3])
            for output in (1, 2):
                os.dup2(fds[3], output)
            os.close(fds[3])
            faulthandler.enable()
            with status:
                status.sendall(b"%d\n" % os.getpid())
            _attempt(orders, events)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)


def _attempt(orders: socket.socket, events: socket.socket) -> None:
    """Read an order, and carry it out while a thread listens to the worker."""
    lines = orders.makefile("rb")
    first = lines.readline()
    if not first.endswith(b"\n"):
        os._exit(WORKER_IS_GONE)
    order = TrainingRequest.model_validate_json(first)
    os.environ.update(_surroundings(order))
    inbox: SimpleQueue[WorkerMessage] = SimpleQueue()
    stopping, cancelled = threading.Event(), threading.Event()

    def listen() -> None:
        try:
            for line in lines:
                message = WORKER_MESSAGE.validate_json(line)
                if isinstance(message, Stop):
                    if message.is_cancel:
                        cancelled.set()
                    stopping.set()
                inbox.put(message)
        finally:
            os._exit(WORKER_IS_GONE)

    def send(message: ProcessMessage) -> None:
        try:
            events.sendall(to_line(message))
        except OSError:
            os._exit(WORKER_IS_GONE)

    threading.Thread(target=listen, daemon=True).start()
    try:
        take_part = _load_trainer()
    except ImportError as error:
        text = f"The trainer cannot be imported here: {error}"
        send(
            Failed(
                code="internal",
                message=text,
                retryable=True,
                failure=TrainingFailure(error=text, code="internal", epoch=0),
            )
        )
        raise
    channel = Channel(send=send, receive=inbox.get, stop_requested=stopping.is_set, cancel_requested=cancelled.is_set)
    take_part(order, channel)


def _surroundings(order: TrainingRequest) -> dict[str, str]:
    """Variables that are read when CUDA starts, and when the processes of an attempt look for each other."""
    found = {}
    if order.visible_devices is not None:
        devices = order.visible_devices.split(",")
        found["CUDA_VISIBLE_DEVICES"] = devices[order.rank] if order.world_size > 1 else order.visible_devices
    if order.world_size > 1:
        found |= {
            "RANK": str(order.rank),
            "LOCAL_RANK": "0",  # each sees its own device alone
            "WORLD_SIZE": str(order.world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(order.meeting_port),
        }
    return found


def _load_trainer() -> Callable[..., None]:
    from influencerai.job_process.entry import take_part

    return take_part
