"""Attempts that hold parts of a node: taken, begun, recalled, paid; and the nodes themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import update

from influencerai.domain.problem import Problem
from influencerai.errors import FencedOffError
from influencerai.scheduling.placement import Allocation, Device, Node
from influencerai.store import Store
from influencerai.store.nodes import NodeState
from influencerai.store.queue import Lease
from influencerai.store.schema import attempts
from tests.store.rows import ANN, add_job, ids_waiting, requeue, rescue, rules, stored

pytestmark = pytest.mark.anyio

HELD = Allocation(node="n1", cpus=2, memory_gb=8, devices={0: 0.5, 3: 0.5})


async def take(store: Store, id: str, *, held: Allocation = HELD, price: float = 0) -> Lease | None:
    claims = replace(rules(), tok_per_device_second=price)
    async with store.write() as transaction:
        found = await transaction.queue.take(ANN, id, node="box", allocation=held, seconds=60, rules=claims)
    return None if found is None else found[0]


async def taken(store: Store, id: str, *, price: float = 0) -> Lease:
    lease = await take(store, id, price=price)
    assert lease is not None
    return lease


async def begin(store: Store, lease: Lease, held: Allocation = HELD) -> None:
    async with store.write() as transaction:
        await transaction.queue.begin(lease, allocation=held, seconds=60)


async def allocations(store: Store) -> list[tuple[str, Allocation, bool]]:
    async with store.read() as transaction:
        return [(item.job_id, item.allocation, item.has_begun) for item in await transaction.attempts.active()]


async def finish(store: Store, lease: Lease) -> None:
    async with store.write() as transaction:
        await transaction.queue.finish(lease, ending="completed", result={"loraPath": "x"})


async def test_what_an_attempt_holds_is_known_from_the_claim_to_the_end(store: Store) -> None:
    job = await add_job(store)
    lease = await taken(store, job.job.id)
    assert await allocations(store) == [(job.job.id, HELD, False)]
    given = Allocation(node="n1", cpus=2, memory_gb=8, devices={1: 0.5, 2: 0.5})
    await begin(store, lease, given)
    assert await allocations(store) == [(job.job.id, given, True)]
    await finish(store, lease)
    assert await allocations(store) == []


async def test_two_dispatchers_take_a_job_once(store: Store, other: Store) -> None:
    job = await add_job(store)
    found = await asyncio.gather(*(take(place, job.job.id) for place in (store, other, store, other)))
    assert sum(lease is not None for lease in found) == 1


async def test_an_attempt_begins_once_and_only_while_it_holds_the_job(store: Store) -> None:
    job = await add_job(store)
    lease = await taken(store, job.job.id)
    await begin(store, lease)
    with pytest.raises(FencedOffError):
        await begin(store, lease)
    await requeue(store, lease, "released")
    again = await taken(store, job.job.id)
    with pytest.raises(FencedOffError):
        await begin(store, lease)
    await begin(store, again)


async def test_a_recall_is_heard_by_the_attempt_that_it_is_for(store: Store) -> None:
    job = await add_job(store)
    lease = await taken(store, job.job.id)
    async with store.write() as transaction:
        await transaction.queue.preempt([(job.job.id, lease.fence - 1), ("unknown", 1)])
        assert not (await transaction.queue.record(lease, seconds=60)).preempt_requested
        await transaction.queue.preempt([(job.job.id, lease.fence)])
        assert (await transaction.queue.record(lease, seconds=60)).preempt_requested
    await requeue(store, lease, "released")
    again = await taken(store, job.job.id)
    async with store.write() as transaction:
        assert not (await transaction.queue.record(again, seconds=60)).preempt_requested


async def test_a_release_asks_no_budget(store: Store) -> None:
    job = await add_job(store)
    for how in ("lost", "lost"):
        await requeue(store, await taken(store, job.job.id), how)
    for _ in range(10):
        await requeue(store, await taken(store, job.job.id), "released")
    assert (await stored(store, job.job.id)).job.status == "pending"


@pytest.mark.parametrize(("outcome", "cost"), [("completed", 31), ("released", 31), ("lost", None), ("broken", None)])
async def test_a_job_pays_for_what_is_its_users_doing(store: Store, outcome: str, cost: int | None) -> None:
    job = await add_job(store)
    lease = await taken(store, job.job.id, price=0.3)
    async with store.database.write() as connection:
        await connection.execute(update(attempts).values(started_at=attempts.c.started_at - 100_500))
    if outcome == "completed":
        await finish(store, lease)
    else:
        await requeue(store, lease, outcome)
    assert (await stored(store, job.job.id)).job.cost_tok == cost


async def test_every_attempt_adds_to_the_cost(store: Store) -> None:
    job = await add_job(store)
    for _ in range(3):
        lease = await taken(store, job.job.id, price=1)
        async with store.database.write() as connection:
            mine = attempts.c.fence == lease.fence
            await connection.execute(update(attempts).where(mine).values(started_at=attempts.c.started_at - 9_500))
        await requeue(store, lease, "released")
    assert (await stored(store, job.job.id)).job.cost_tok == 30


async def test_a_lost_attempt_holds_nothing_any_more(store: Store) -> None:
    job = await add_job(store)
    claims = rules()
    async with store.write() as transaction:
        await transaction.queue.take(ANN, job.job.id, node="box", allocation=HELD, seconds=0, rules=claims)
    await asyncio.sleep(0.01)
    assert await rescue(store) == 1
    assert await allocations(store) == []


async def test_a_plan_asks_for_needs_anew(store: Store) -> None:
    job = await add_job(store)
    async with store.read() as transaction:
        assert [item.id for item in await transaction.pending_jobs.unplanned(limit=9)] == [job.job.id]
    async with store.write() as transaction:
        await transaction.pending_jobs.set_resource_options(job.job.id, "{}")
        assert await transaction.pending_jobs.unplanned(limit=9) == []
        [queued] = (await transaction.pending_jobs.waiting(rules(), per_tenant=1))[ANN]
        assert queued.options == "{}"
    lease = await taken(store, job.job.id)
    async with store.write() as transaction:
        await transaction.queue.freeze(lease, plan={"spec": {}}, output_dir="data/loras/face")
    await requeue(store, lease, "released")
    async with store.read() as transaction:
        [found] = await transaction.pending_jobs.unplanned(limit=9)
    assert found.plan == {"spec": {}}


async def test_nodes_are_seen_until_they_are_not(store: Store) -> None:
    node = Node(id="n1", name="box", cpus=8, memory_gb=64.5, devices=(Device(name="H100", memory_gb=80),))
    async with store.write() as transaction:
        await transaction.nodes.note([NodeState(node=node, problem="It is new.")])
        await transaction.nodes.note([NodeState(node=node, is_draining=True)])
    async with store.read() as transaction:
        [seen] = await transaction.nodes.seen(within_seconds=60)
        assert (seen.node, seen.problem, seen.is_draining) == (node, None, True)
        assert await transaction.nodes.seen(within_seconds=-1) == []
    async with store.write() as transaction:
        await transaction.nodes.forget(unseen_seconds=60)
        assert len(await transaction.nodes.seen(within_seconds=60)) == 1
        await transaction.nodes.forget(unseen_seconds=-1)
        assert await transaction.nodes.seen(within_seconds=60) == []


async def test_the_usual_length_is_the_median_of_what_was_completed(store: Store) -> None:
    async with store.read() as transaction:
        assert await transaction.attempts.usual_seconds() is None
    for seconds in (10, 20, 400):
        job = await add_job(store)
        lease = await taken(store, job.job.id)
        async with store.database.write() as connection:
            mine = attempts.c.job_id == job.job.id
            moved = attempts.c.started_at - 1000 * seconds
            await connection.execute(update(attempts).where(mine).values(started_at=moved))
        await finish(store, lease)
    async with store.read() as transaction:
        assert await transaction.attempts.usual_seconds() == pytest.approx(20, abs=1)


async def test_what_is_set_aside_lets_others_be_looked_at(store: Store) -> None:
    first, second = [(await add_job(store, output_dir=str(number))).job.id for number in range(2)]
    async with store.read() as transaction:
        assert await ids_waiting(transaction, per_tenant=9) == {ANN: [first, second]}
        assert await ids_waiting(transaction, per_tenant=9, without={first}) == {ANN: [second]}


async def test_only_what_has_not_begun_is_given_back_as_that(store: Store) -> None:
    job = await add_job(store)
    lease = await taken(store, job.job.id)
    await begin(store, lease)
    with pytest.raises(FencedOffError):
        async with store.write() as transaction:
            await transaction.queue.requeue_unbegun(lease, problem=Problem("It is late.", "unbegun"), pause_seconds=0)
    await requeue(store, lease, "lost")
    again = await taken(store, job.job.id)
    async with store.write() as transaction:
        await transaction.queue.requeue_unbegun(again, problem=Problem("It is late.", "unbegun"), pause_seconds=60)
        assert await ids_waiting(transaction, per_tenant=9) == {}
    found = (await stored(store, job.job.id)).job
    assert (found.status, found.waiting) == ("pending", "It is late.")
