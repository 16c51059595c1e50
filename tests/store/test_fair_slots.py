"""Fair slots: waiting tenants are served in turn, however many requests others have waiting."""

from __future__ import annotations

import asyncio

import pytest

from influencerai.errors import TooManyError
from influencerai.store import Store
from influencerai.store.fair_slots import FairSlots, acting_for
from tests.store.rows import add_config

pytestmark = pytest.mark.anyio


class Work:
    """Takes slots, notes who had them, and how many at once."""

    def __init__(self, slots: FairSlots) -> None:
        self._slots = slots
        self.order: list[str] = []
        self.most: dict[str, int] = {}
        self._now: dict[str, int] = {}

    async def do(self, who: str) -> None:
        with acting_for(who):
            async with self._slots.slot():
                self.order.append(who)
                self._now[who] = self._now.get(who, 0) + 1
                self.most[who] = max(self.most.get(who, 0), self._now[who])
                await asyncio.sleep(0.001)
                self._now[who] -= 1


async def test_one_comes_between_many_of_another() -> None:
    work = Work(FairSlots(slots=1, each=1))
    await asyncio.gather(*(work.do("ann") for _ in range(50)), work.do("bob"), work.do("bob"), work.do("cleo"))
    assert work.order[:6] == ["ann", "ann", "bob", "cleo", "ann", "bob"]
    assert len(work.order) == 53


async def test_none_has_more_than_its_share_but_the_server_itself() -> None:
    work = Work(FairSlots(slots=6, each=2))
    await asyncio.gather(*(work.do(who) for who in ["ann", "bob", ""] for _ in range(20)))
    assert (work.most["ann"], work.most["bob"]) == (2, 2)
    await asyncio.gather(*(work.do("") for _ in range(20)))
    assert work.most[""] == 6


async def test_who_leaves_the_line_takes_no_turn() -> None:
    slots = FairSlots(slots=2, each=2)
    work = Work(slots)
    tasks = [asyncio.create_task(work.do(who)) for who in ["ann"] * 20 + ["bob"] * 20]
    await asyncio.sleep(0)
    for number, task in enumerate(tasks):
        if number % 3:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(asyncio.gather(*(work.do("cleo") for _ in range(10))), 5)
    assert slots._free == 2
    assert not slots._waiting
    assert not slots._held


async def test_a_turn_goes_to_the_next_in_line_when_the_first_was_cancelled_in_that_moment() -> None:
    slots = FairSlots(slots=1, each=1)
    order: list[str] = []
    done = asyncio.Event()

    async def hold(name: str) -> None:
        with acting_for("ann"):
            async with slots.slot():
                order.append(name)
                await done.wait()

    tasks = [asyncio.create_task(hold(name)) for name in ("first", "second", "third")]
    await asyncio.sleep(0.01)
    done.set()  # The first gives its turn back before the second, cancelled now, can leave the line.
    tasks[1].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
    assert order == ["first", "third"]


async def test_a_line_is_bounded() -> None:
    work = Work(FairSlots(slots=1, each=1, waiting=5))
    found = await asyncio.gather(*(work.do("ann") for _ in range(10)), work.do("bob"), return_exceptions=True)
    assert [type(error) for error in found if error] == [TooManyError] * 4
    assert found[-1] is None


async def test_reads_do_not_wait_for_another_tenants_writers(store: Store) -> None:
    """Fifty writers of one tenant wait for its row: they held every connection of the process."""
    id = (await add_config(store, tenant="bob")).id
    locked, done = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        with acting_for("ann"):
            async with store.write() as transaction:
                await transaction.lock_tenant("ann")
                locked.set()
                await done.wait()

    writers = [asyncio.create_task(write()) for _ in range(50)]
    await locked.wait()
    await asyncio.sleep(0.1)
    try:
        with acting_for("bob"):
            for _ in range(5):
                async with asyncio.timeout(2), store.read() as transaction:
                    assert await transaction.lora_configs.get("bob", id)
            if not store.database.is_sqlite:  # which has one writer
                async with asyncio.timeout(2), store.write() as transaction:
                    await transaction.lock_tenant("bob")
    finally:
        done.set()
        await asyncio.gather(*writers)
