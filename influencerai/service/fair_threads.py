"""Fair threads: long work of many tenants, of which none can take every thread."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from influencerai.errors import TooManyError

T = TypeVar("T")
Check = Callable[[], None]
"""Raises CancelledError where nobody waits for the work any more; work calls it between its steps."""

_NICENESS = 10
"""Requests that need no pictures get the processor first."""
_RETRY_SECONDS = 5


@dataclass(eq=False)
class _Work:
    tenant: str
    call: Callable[[Check], Any]
    done: asyncio.Future[Any]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise asyncio.CancelledError

    def run(self) -> Any:
        try:
            self.check()
            return self.call(self.check)
        finally:
            _give_back_memory()


class FairThreads:
    """Threads of their own for work that takes long. Tenants take turns.

    Args:
        name: of the threads.
        threads: how many run at once.
        per_tenant: how many of them one tenant may hold.
        waiting: how much work of one tenant may wait.
    """

    def __init__(self, name: str, *, threads: int, per_tenant: int, waiting: int) -> None:
        self._threads = threads
        self._per_tenant = per_tenant
        self._most_waiting = waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_be_nice)
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()
        """The tenant whose turn it is comes first."""
        self._running: dict[_Work, asyncio.Future[Any]] = {}
        self._is_closed = False

    async def run(self, tenant: str, call: Callable[[Check], T]) -> T:
        """What `call` returns, from a thread. Cancelled work that waits never begins; else it ends at its next check.

        A cancelled caller goes on only when the work has ended, so that nothing is written after that.

        Raises:
            TooManyError: too much of the tenant's work waits already.
        """
        if self._is_closed:
            raise asyncio.CancelledError
        queue = self._waiting.setdefault(tenant, deque())
        if len(queue) >= self._most_waiting:
            raise TooManyError(
                f"{len(queue)} uploads and inspections of this tenant wait already", retry_after=_RETRY_SECONDS
            )
        work = _Work(tenant, call, asyncio.get_running_loop().create_future())
        queue.append(work)
        self._start_next()
        try:
            result: T = await work.done
            return result
        finally:
            work.cancelled.set()
            self._forget(work)
            if (running := self._running.get(work)) is not None:
                await asyncio.wait({running})

    async def close(self) -> None:
        """Cancel all work, and wait until the threads have noticed."""
        self._is_closed = True
        for queue in self._waiting.values():
            for work in queue:
                work.done.cancel()
        self._waiting.clear()
        for work in self._running:
            work.cancelled.set()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._executor.shutdown(wait=False)

    def _start_next(self) -> None:
        held = Counter(work.tenant for work in self._running)
        while len(self._running) < self._threads:
            tenant = next((tenant for tenant in self._waiting if held[tenant] < self._per_tenant), None)
            if tenant is None:
                return
            work = self._waiting[tenant].popleft()
            self._waiting.move_to_end(tenant)
            if not self._waiting[tenant]:
                del self._waiting[tenant]
            held[tenant] += 1
            self._start(work)

    def _start(self, work: _Work) -> None:
        running = asyncio.get_running_loop().run_in_executor(self._executor, work.run)
        self._running[work] = running

        def end(running: asyncio.Future[Any]) -> None:
            del self._running[work]
            if not work.done.done():
                if running.cancelled():
                    work.done.cancel()
                elif error := running.exception():
                    work.done.set_exception(error)
                else:
                    work.done.set_result(running.result())
            elif not running.cancelled():
                running.exception()  # Nobody waits for it any more.
            if not self._is_closed:
                self._start_next()

        running.add_done_callback(end)

    def _forget(self, work: _Work) -> None:
        queue = self._waiting.get(work.tenant)
        if queue is not None:
            with contextlib.suppress(ValueError):
                queue.remove(work)
            if not queue:
                del self._waiting[work.tenant]


def _be_nice() -> None:
    """Lower the priority of this thread; Linux has one for each."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _give_back_memory() -> None:
    """Return what decoded pictures have used to the system; glibc keeps it for the thread otherwise."""
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)


def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # No glibc.
        return None


_MALLOC_TRIM = _malloc_trim()
