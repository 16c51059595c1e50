"""Admission: requests of a tenant begin one after another, and long ones keep none of its others waiting."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from influencerai.serve.admission import Admission
from influencerai.store.fair_slots import acting_for
from influencerai.store.paging import converted

pytestmark = pytest.mark.anyio


class Requests:
    """Requests that are answered when told to, and how many have begun."""

    def __init__(self) -> None:
        self._admission = Admission()
        self.begun = {"ann": 0, "bob": 0}
        self.is_answered = asyncio.Event()

    async def send(self, who: str) -> None:
        with acting_for(who):
            async with self._admission.slot():
                self.begun[who] += 1
                await self.is_answered.wait()


async def test_one_of_a_burst_begins_at_once_and_another_tenants_beside_it() -> None:
    requests = Requests()
    sent = [asyncio.create_task(requests.send(who)) for who in ["ann"] * 50 + ["bob"]]
    await asyncio.sleep(0)
    assert requests.begun == {"ann": 1, "bob": 1}
    requests.is_answered.set()
    await asyncio.gather(*sent)
    assert requests.begun == {"ann": 50, "bob": 1}


async def test_requests_that_are_not_answered_soon_keep_no_turn() -> None:
    requests = Requests()
    sent = [asyncio.create_task(requests.send("ann")) for _ in range(12)]
    async with asyncio.timeout(5):
        while requests.begun["ann"] < 12:
            await asyncio.sleep(0.01)
    requests.is_answered.set()
    await asyncio.gather(*sent)


async def test_rows_are_converted_a_few_at_a_time_between_others_work() -> None:
    done: list[int] = []
    seen: list[int] = []

    def convert(row: Any) -> int:
        done.append(row)
        return int(row)

    async def other() -> None:
        while len(done) < 23:
            seen.append(len(done))
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    rows: Any = range(23)
    assert await converted(rows, convert) == tuple(range(23))
    await beside
    assert max(after - before for before, after in pairwise([0, *seen, 23])) == 5
