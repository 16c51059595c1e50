"""Whose turn it is: by device-time between tenants, by priority and age within one."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from influencerai.scheduling.fair_share import EXPECTED_SECONDS
from influencerai.store import Store
from influencerai.store.queue import Lease
from influencerai.store.schema import attempts
from tests.store.rows import (
    ANN,
    BOB,
    add_dataset,
    add_job,
    claim,
    claimed,
    finish,
    ids_waiting,
    report,
    requeue,
    rules,
)

pytestmark = pytest.mark.anyio


async def usage(store: Store, *tenants: str) -> dict[str, float]:
    """Seconds by tenant, in tenths."""
    async with store.read() as transaction:
        shares = await transaction.pending_jobs.shares(tenants or (ANN,))
    return {tenant: round(share.virtual_time, 1) for tenant, share in shares.items()}


async def lasted(store: Store, lease: Lease, seconds: int) -> None:
    """Let the attempt have begun so long ago."""
    async with store.database.write() as connection:
        mine = update(attempts).where(attempts.c.job_id == lease.job_id, attempts.c.fence == lease.fence)
        await connection.execute(mine.values(started_at=attempts.c.started_at - 1000 * seconds))


async def order(store: Store, count: int) -> list[str]:
    return [(await claimed(store)).tenant_id for _ in range(count)]


async def test_a_start_is_charged_at_once_and_corrected_by_the_end(store: Store) -> None:
    await add_job(store)
    lease = await claimed(store)
    assert await usage(store) == {ANN: EXPECTED_SECONDS}
    await lasted(store, lease, 7200)
    await finish(store, lease)
    assert (await usage(store))[ANN] == pytest.approx(7200, abs=2)


@pytest.mark.parametrize("how", ["lost", "released", "broken"])
async def test_what_an_attempt_took_is_paid_however_it_ended(store: Store, how: str) -> None:
    await add_job(store)
    lease = await claimed(store)
    await lasted(store, lease, 100)
    await requeue(store, lease, how)
    assert (await usage(store))[ANN] == pytest.approx(100, abs=2)


async def test_tenants_alternate_while_they_have_had_the_same(store: Store) -> None:
    for tenant in (ANN, ANN, ANN, BOB, BOB, BOB):
        await add_job(store, tenant)
    assert await order(store, 6) == [ANN, BOB] * 3


async def test_who_has_had_less_goes_first(store: Store) -> None:
    for tenant in (ANN, ANN, BOB, BOB, BOB):
        await add_job(store, tenant)
    lease = await claimed(store)
    assert lease.tenant_id == ANN
    await lasted(store, lease, round(2.5 * EXPECTED_SECONDS))
    await finish(store, lease)
    assert await order(store, 4) == [BOB, BOB, BOB, ANN]


async def test_idleness_saves_nothing_up(store: Store) -> None:
    for _ in range(4):
        await add_job(store)
    lease = await claimed(store)
    await lasted(store, lease, 100_000)
    await finish(store, lease)
    for _ in range(3):
        await add_job(store, BOB)
    found = await usage(store, ANN, BOB)
    assert found[ANN] == found[BOB] > 99_000
    assert sorted(await order(store, 4)) == [ANN, ANN, BOB, BOB]


async def test_a_newcomer_begins_where_who_has_had_nothing_is(store: Store) -> None:
    await add_job(store)
    lease = await claimed(store)
    await lasted(store, lease, 100_000)
    await finish(store, lease)
    await add_job(store, BOB)  # while nobody else is active
    await add_job(store, ANN)
    await add_job(store, "cyd")
    assert await usage(store, BOB, "cyd") == {BOB: 0, "cyd": 0}


async def test_a_stranger_that_trains_costs_no_device_of_ours(store: Store) -> None:
    made = await add_job(store)
    await report(store, made.job.id, status="running")
    await report(store, made.job.id, status="completed")
    assert await usage(store) == {ANN: 0}


async def test_each_tenants_first_jobs_are_in_its_own_order(store: Store) -> None:
    waits = await add_dataset(store, status="pending")
    blocked = await add_job(store, dataset_id=waits.id, priority=10)
    made = [await add_job(store, priority=priority, output_dir=str(priority)) for priority in (5, 9, 5, 1)]
    other = await add_job(store, BOB)
    async with store.read() as transaction:
        found = await ids_waiting(transaction, per_tenant=3)
        assert found == {ANN: [made[index].job.id for index in (1, 0, 2)], BOB: [other.job.id]}
        late = await ids_waiting(transaction, rules(dataset_wait_seconds=-1), per_tenant=1)
        assert late[ANN] == [blocked.job.id]


async def test_a_full_tenant_lets_others_pass(store: Store) -> None:
    for tenant in (ANN, ANN, BOB):
        await add_job(store, tenant)
    assert [(await claimed(store, running_per_tenant=1)).tenant_id for _ in range(2)] == [ANN, BOB]
    assert await claim(store, running_per_tenant=1) is None
