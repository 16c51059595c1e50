"""Fair threads: tenants take turns, work ends when nobody waits for it, and each key is worked on once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from influencerai.errors import TooManyError
from influencerai.service.fair_threads import Check, FairThreads
from influencerai.service.shared_work import SharedWork

pytestmark = pytest.mark.anyio
SECONDS = 10


@pytest.fixture
async def threads() -> AsyncIterator[FairThreads]:
    opened = FairThreads("test", threads=2, per_tenant=1, waiting=3)
    yield opened
    await opened.close()


class Gate:
    """Work that lasts until the gate is opened, or until its check ends it."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.begun = 0
        self.ended = 0

    def __call__(self, check: Check) -> str:
        self.begun += 1
        try:
            while not self.is_open.wait(0.01):
                check()
            return "done"
        finally:
            self.ended += 1


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_one_tenant_leaves_threads_to_the_others(threads: FairThreads) -> None:
    gate = Gate()
    held = [asyncio.create_task(threads.run("ann", gate)) for _ in range(3)]
    await until(lambda: gate.begun == 1)
    assert await asyncio.wait_for(threads.run("bob", lambda _: "quick"), SECONDS) == "quick"
    assert gate.begun == 1
    gate.is_open.set()
    assert await asyncio.gather(*held) == ["done"] * 3


async def test_tenants_take_turns(threads: FairThreads) -> None:
    gates = [Gate(), Gate()]
    blocked = [asyncio.create_task(threads.run(f"held{number}", gate)) for number, gate in enumerate(gates)]
    await until(lambda: all(gate.begun for gate in gates))
    order: list[str] = []
    waiting = [asyncio.create_task(threads.run("ann", lambda _: order.append("ann"))) for _ in range(3)]
    waiting.append(asyncio.create_task(threads.run("bob", lambda _: order.append("bob"))))
    await asyncio.sleep(0)
    gates[0].is_open.set()
    await asyncio.gather(*waiting)
    gates[1].is_open.set()
    await asyncio.gather(*blocked)
    assert order.index("bob") == 1


async def test_too_much_waiting_work_is_refused(threads: FairThreads) -> None:
    gate = Gate()
    held = [asyncio.create_task(threads.run("ann", gate)) for _ in range(4)]
    await until(lambda: gate.begun == 1)
    with pytest.raises(TooManyError, match="3 uploads and inspections of this tenant wait already"):
        await threads.run("ann", gate)
    assert await threads.run("bob", lambda _: 1) == 1
    gate.is_open.set()
    await asyncio.gather(*held)


async def test_cancelled_work_ends_and_what_waited_behind_it_begins(threads: FairThreads) -> None:
    gate, after = Gate(), Gate()
    running = asyncio.create_task(threads.run("ann", gate))
    waiting = asyncio.create_task(threads.run("ann", gate))
    behind = asyncio.create_task(threads.run("ann", after))
    await until(lambda: gate.begun == 1)
    waiting.cancel()
    running.cancel()
    await until(lambda: after.begun == 1)
    assert (gate.begun, gate.ended) == (1, 1)
    after.is_open.set()
    assert await behind == "done"


async def test_a_cancelled_caller_goes_on_when_the_work_has_ended(threads: FairThreads) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def write(check: Check) -> None:
        begun.set()
        assert go.wait(SECONDS)
        ended.set()

    caller = asyncio.create_task(threads.run("ann", write))
    await until(begun.is_set)
    caller.cancel()
    await asyncio.sleep(0.05)
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_an_error_reaches_who_waits(threads: FairThreads) -> None:
    def fail(check: Check) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await threads.run("ann", fail)


async def test_closing_ends_all_work() -> None:
    threads, gate = FairThreads("test", threads=2, per_tenant=1, waiting=3), Gate()
    work = [asyncio.create_task(threads.run("ann", gate)) for _ in range(2)]
    await until(lambda: gate.begun == 1)
    await threads.close()
    assert gate.ended == 1
    assert all(
        isinstance(found, asyncio.CancelledError) for found in await asyncio.gather(*work, return_exceptions=True)
    )


class Look:
    """Shared work that counts how often it is done, and that lasts until it is released."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


async def test_who_comes_during_a_look_shares_the_next_one() -> None:
    shared, look = SharedWork[int](), Look()
    first = asyncio.create_task(shared.run("a", look))
    await until(lambda: look.begun == 1)
    others = [asyncio.create_task(shared.run("a", look)) for _ in range(40)]
    elsewhere = asyncio.create_task(shared.run("b", look))
    await until(lambda: look.begun == 2)
    look.release.set()
    assert (await first, await elsewhere) == (1, 2)
    assert await asyncio.gather(*others) == [3] * 40
    assert await shared.run("a", look) == 4


async def test_a_look_is_cancelled_when_the_last_has_left() -> None:
    shared, look = SharedWork[int](), Look()
    tasks = [asyncio.create_task(shared.run("a", look)) for _ in range(3)]
    await until(lambda: look.begun == 1)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert not look.cancelled
    tasks[2].cancel()
    await until(lambda: look.cancelled == 1)
    look.release.set()
    assert await shared.run("a", look) == 2


@pytest.mark.parametrize("turns", [0, 3], ids=["at once", "a little later"])
async def test_a_cancelled_one_that_waited_lets_nobody_run_beside_the_first(turns: int) -> None:
    shared, look = SharedWork[int](), Look()
    first = asyncio.create_task(shared.run("a", look))
    await until(lambda: look.begun == 1)
    waiting = asyncio.create_task(shared.run("a", look))
    await asyncio.sleep(0.01)
    waiting.cancel()
    for _ in range(turns):
        await asyncio.sleep(0)
    last = asyncio.create_task(shared.run("a", look))
    await asyncio.sleep(0.01)
    assert look.begun == 1
    look.release.set()
    assert (await first, await last) == (1, 2)
    assert not shared._latest
