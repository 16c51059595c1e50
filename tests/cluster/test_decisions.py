"""Decisions: who starts where, seen without a lock and claimed under one."""

from __future__ import annotations

import json
from collections.abc import Collection

import anyio
import pytest

from influencerai.cluster.decisions import Decisions, Look, Started, View
from influencerai.scheduling.placement import Node, ResourceRequest
from influencerai.scheduling.resource_options import ResourceOption
from influencerai.settings import Settings
from influencerai.store import Store
from tests.store.rows import ANN, BOB, add_job, cancel, finish

pytestmark = pytest.mark.anyio

OPTION = ResourceOption(request=ResourceRequest(cpus=1), micro_batch=1, gradient_checkpointing=False)


async def add_planned_jobs(store: Store, *tenants: str) -> list[str]:
    ids = []
    for number, tenant in enumerate(tenants):
        job = await add_job(store, tenant, output_dir=str(number))
        async with store.write() as transaction:
            await transaction.pending_jobs.set_resource_options(job.job.id, json.dumps({"cpu": [OPTION.to_document()]}))
        ids.append(job.job.id)
    return ids


def view(*cores: int, aside: Collection[str] = ()) -> View:
    nodes = [Node(id=f"n{number}", name=f"n{number}", cpus=count, memory_gb=8) for number, count in enumerate(cores)]
    return View(ready={node.id: node for node in nodes}, aside=aside)


async def look(store: Store, decisions: Decisions, seen: View) -> Look:
    async with store.read() as transaction:
        return await decisions.look(transaction, seen)


async def start(store: Store, decisions: Decisions, seen: View, looked: Look) -> list[Started]:
    async with store.write() as transaction:
        return await decisions.start(transaction, seen, looked)


async def test_what_was_seen_is_claimed(store: Store) -> None:
    decisions, seen = Decisions(Settings()), view(1, 1)
    ids = await add_planned_jobs(store, ANN, BOB, ANN)
    looked = await look(store, decisions, seen)
    assert [start.job.id for start in looked.starts] == ids[:2]
    started = await start(store, decisions, seen, looked)
    assert [(item.lease.job_id, item.allocation.node, item.option) for item in started] == [
        (ids[0], "n0", OPTION),
        (ids[1], "n1", OPTION),
    ]
    assert not (await look(store, decisions, seen)).starts


async def test_two_who_have_seen_the_same_core_free_give_it_away_once(store: Store) -> None:
    decisions, seen = Decisions(Settings()), view(1)
    ids = await add_planned_jobs(store, ANN, BOB)
    both = [await look(store, decisions, nodes) for nodes in (seen, view(1, aside=ids[:1]))]
    assert [[start.job.id for start in looked.starts] for looked in both] == [ids[:1], ids[1:]]
    [first] = await start(store, decisions, seen, both[0])
    assert await start(store, decisions, seen, both[1]) == []
    await finish(store, first.lease)
    [second] = await start(store, decisions, seen, both[1])
    assert [first.lease.job_id, second.lease.job_id] == ids


async def test_two_who_have_seen_the_same_tenant_below_its_limit_keep_to_it(store: Store) -> None:
    decisions = Decisions(Settings(running_jobs_per_tenant=1))
    ids = await add_planned_jobs(store, ANN, ANN)
    seen = view(1), view(0, 1, aside=ids[:1])
    looks = [await look(store, decisions, nodes) for nodes in seen]
    assert [[start.job.id for start in looked.starts] for looked in looks] == [ids[:1], ids[1:]]
    started = [await start(store, decisions, *each) for each in zip(seen, looks, strict=True)]
    assert [len(claimed) for claimed in started] == [1, 0]


async def test_what_was_cancelled_since_is_not_started(store: Store) -> None:
    decisions, seen = Decisions(Settings()), view(1)
    [id] = await add_planned_jobs(store, ANN)
    looked = await look(store, decisions, seen)
    await cancel(store, id)
    assert await start(store, decisions, seen, looked) == []


@pytest.mark.parametrize("shared_url", ["postgres"], indirect=True)  # on SQLite writers are alone
async def test_a_tenant_that_is_busy_holds_up_nobody_else(store: Store, other: Store) -> None:
    decisions, seen = Decisions(Settings()), view(1, 1)
    ids = await add_planned_jobs(store, ANN, BOB)
    looked = await look(store, decisions, seen)
    async with other.write() as transaction:
        await transaction.lock_tenant(ANN)  # as whoever has submitted a job
    async with other.write() as transaction:
        await transaction.lock_tenant(ANN)
        with anyio.fail_after(10):
            [started] = await start(store, decisions, seen, looked)
    assert started.lease.job_id == ids[1]
    [later] = await start(store, decisions, seen, await look(store, decisions, seen))
    assert later.lease.job_id == ids[0]


async def test_without_a_node_nothing_starts(store: Store) -> None:
    decisions = Decisions(Settings())
    await add_planned_jobs(store, ANN)
    assert not (await look(store, decisions, view())).starts
