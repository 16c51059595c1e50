"""Races: many connections at once, in one process and in several."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from sqlalchemy import Row, select, update

from influencerai.domain.lora_config_record import LoraConfigQuery
from influencerai.errors import ConflictError, FencedOffError, InfluencerAIError, InUseError, NotFoundError, StoreError
from influencerai.store import Store
from influencerai.store.events import StepFigures
from influencerai.store.idempotency import LIFETIME_MS, RequestKey
from influencerai.store.queue import Report
from influencerai.store.schema import attempts, idempotency_keys, jobs
from tests.store.rows import (
    ANN,
    BOB,
    add_config,
    add_dataset,
    add_job,
    cancel,
    check_counts,
    claim,
    claimed,
    events_of,
    finish,
    lora_config,
    new_job,
    report,
    requeue,
    rescue,
    stored,
)

pytestmark = pytest.mark.anyio


async def outcomes(*racers: Coroutine[Any, Any, Any]) -> list[Any]:
    """What each racer returned or raised, of our own errors."""
    found = await asyncio.gather(*racers, return_exceptions=True)
    for item in found:
        if isinstance(item, BaseException) and not isinstance(item, InfluencerAIError):
            raise item
    assert not [item for item in found if isinstance(item, StoreError)]
    return found


async def test_one_of_many_creates_of_a_name_wins(store: Store, other: Store) -> None:
    found = await outcomes(*(add_config((store, other)[index % 2], isDefault=index % 3 == 0) for index in range(50)))
    made = [item for item in found if not isinstance(item, ConflictError)]
    assert len(made) == 1
    assert {item.existing_id for item in found if isinstance(item, ConflictError)} == {made[0].id}
    await check_counts(store)


async def test_there_is_one_default_after_many_made_and_named_themselves_it(store: Store, other: Store) -> None:
    made = [await add_config(store, name=f"old {index}") for index in range(25)]

    async def name_default(place: Store, id: str) -> None:
        async with place.write() as transaction:
            await transaction.lora_configs.edit(ANN, id, lambda found: found.model_copy(update={"is_default": True}))

    await outcomes(
        *(name_default((store, other)[index % 2], item.id) for index, item in enumerate(made)),
        *(add_config((store, other)[index % 2], name=f"new {index}", isDefault=True) for index in range(25)),
    )
    async with store.read() as transaction:
        page = await transaction.lora_configs.page(ANN, LoraConfigQuery(is_default=True))
        assert (len(page.items), page.total) == (1, 1)
        assert page.items[0].is_default
        every = await transaction.lora_configs.page(ANN, LoraConfigQuery(take=100))
        assert (len(every.items), every.total) == (50, 50)
        assert sum(item.is_default for item in every.items) == 1
    await check_counts(store)


def request(*, body: str = "0") -> RequestKey:
    return RequestKey(route="POST /lora-configs", key="k", body_sha256=body * 64)


async def make_once(store: Store, name: str, key: RequestKey, *, tenant: str = ANN) -> Any:
    async with store.write() as transaction:
        before = await transaction.idempotency_keys.answer(tenant, key)
        if before is not None:
            return before
        made = await transaction.lora_configs.add(tenant, lora_config(name))
        await asyncio.sleep(0.01)
        await transaction.idempotency_keys.keep(tenant, key, {"z": 1.0, "id": made.id})
        return {"z": 1.0, "id": made.id}


async def test_many_requests_of_one_key_make_one_row_and_get_one_answer(store: Store, other: Store) -> None:
    found = await outcomes(*(make_once((store, other)[index % 2], f"n{index}", request()) for index in range(50)))
    assert {repr(item) for item in found} == {repr(found[0])}
    with pytest.raises(ConflictError, match="'k'"):
        await make_once(store, "x", request(body="1"))
    assert await make_once(store, "x", request(), tenant=BOB) != found[0]
    elsewhere = RequestKey(route="POST /jobs", key="k", body_sha256="2" * 64)
    assert await make_once(store, "x", elsewhere) != found[0]
    async with store.read() as transaction:
        assert (await transaction.lora_configs.page(ANN, LoraConfigQuery())).total == 2
    await check_counts(store)


async def test_a_key_whose_request_failed_is_free_again(store: Store, other: Store) -> None:
    async def fail() -> None:
        async with store.write() as transaction:
            assert await transaction.idempotency_keys.answer(ANN, request()) is None
            waiting.append(asyncio.create_task(make_once(other, "b", request(body="1"))))
            await asyncio.sleep(0.05)
            assert not waiting[0].done()
            raise ZeroDivisionError

    waiting: list[asyncio.Task[Any]] = []
    with pytest.raises(ZeroDivisionError):
        await fail()
    second = await waiting[0]
    assert await make_once(store, "c", request(body="1")) == second


async def test_a_key_lives_for_a_day(store: Store) -> None:
    first = await make_once(store, "a", request())

    async def grow_older(milliseconds: int) -> None:
        async with store.database.write() as connection:
            older = idempotency_keys.c.created_at - milliseconds
            await connection.execute(update(idempotency_keys).values(created_at=older))

    await grow_older(LIFETIME_MS - 60_000)
    assert await make_once(store, "b", request()) == first
    await grow_older(60_001)
    found = await outcomes(*(make_once(store, f"c{index}", request(body="1")) for index in range(10)))
    assert {repr(item) for item in found} == {repr(found[0])}
    assert found[0] != first


async def test_each_job_is_claimed_once(store: Store, other: Store) -> None:
    made = {(await add_job(store, output_dir=str(index))).job.id for index in range(10)}
    found = await outcomes(*(claim((store, other)[index % 2]) for index in range(20)))
    assert Counter(item[0].job_id for item in found if item) == Counter(made)
    async with store.database.read() as connection:
        assert len((await connection.execute(select(attempts.c.job_id))).all()) == 10
    await check_counts(store)


async def test_the_cap_of_a_tenant_holds_among_claimers(store: Store, other: Store) -> None:
    for index in range(8):
        await add_job(store, output_dir=str(index))
        await add_job(store, BOB, output_dir=str(index))
    found = await outcomes(*(claim((store, other)[index % 2], running_per_tenant=3) for index in range(20)))
    assert Counter(item[0].tenant_id for item in found if item) == {ANN: 3, BOB: 3}


async def test_a_job_has_one_owner_whoever_claims_it(store: Store, other: Store) -> None:
    def decide(job: Any) -> Report:
        if job.job.status != "pending":
            raise ConflictError(f"It is {job.owner}'s.")
        return Report(status="running")

    async def report_running(place: Store, id: str) -> Any:
        async with place.write() as transaction:
            return await transaction.queue.report(ANN, id, decide, seconds=60)

    for index in range(10):
        made = await add_job(store, output_dir=str(index))
        id = made.job.id
        found = await outcomes(claim(store), report_running(other, id), claim(other), report_running(store, id))
        owners = [item for item in found if item is not None and not isinstance(item, ConflictError)]
        assert len(owners) == 1
        now = await stored(store, id)
        assert (now.job.status, now.fence) == ("running", 1)
        await (report(store, id, status="failed") if now.owner == "external" else finish(store, owners[0][0]))
    await check_counts(store)


@pytest.mark.parametrize("noun", ["dataset", "config"])
async def test_no_active_job_is_without_what_it_uses(store: Store, other: Store, noun: str) -> None:
    for index in range(8):
        dataset, config = await add_dataset(store), await add_config(store, name=str(index))

        async def remove(dataset_id: str = dataset.id, config_id: str = config.id) -> Any:
            async with other.write() as transaction:
                if noun == "dataset":
                    return await transaction.datasets.remove(ANN, dataset_id)
                return await transaction.lora_configs.remove(ANN, config_id)

        job = add_job(store, dataset_id=dataset.id, config_id=config.id, output_dir=str(index))
        racers = [job, remove()] if index % 2 else [remove(), job]
        found = await outcomes(*racers)
        errors = [type(item) for item in found if isinstance(item, InfluencerAIError)]
        assert errors in ([NotFoundError], [InUseError])
    await check_counts(store)


async def test_an_ending_and_a_cancelling_leave_one_end(store: Store, other: Store) -> None:
    for index in range(10):
        made = await add_job(store, output_dir=str(index))
        lease = await claimed(store)
        await outcomes(finish(store, lease), cancel(other, made.job.id))
        job = (await stored(store, made.job.id)).job
        assert job.status == "completed"
        ends = [data for _, type, data in await events_of(store, made.job.id) if data.get("outcome")]
        assert ends == [{"status": "completed", "outcome": "completed"}]
    await check_counts(store)


async def test_a_job_is_reaped_once_and_its_old_holder_writes_nothing_more(store: Store, other: Store) -> None:
    for index in range(6):
        await add_job(store, output_dir=str(index))
    leases = [await claimed(store, seconds=0) for _ in range(6)]
    await asyncio.sleep(0.01)

    async def record(place: Store, index: int) -> bool:
        async with place.write() as transaction:
            figures = [StepFigures(step=1, epoch=1, loss=1.0)]
            asked = await transaction.queue.record(leases[index], seconds=60, figures=figures, events=[("late", {})])
            return asked.cancel_requested

    found = await outcomes(
        rescue(store), rescue(other), *(record((store, other)[index % 2], index) for index in range(6))
    )
    fenced = [isinstance(item, FencedOffError) for item in found[2:]]
    assert found[0] + found[1] == sum(fenced)
    for lease, lost in zip(leases, fenced, strict=True):
        now = await stored(store, lease.job_id)
        assert now.job.status == ("pending" if lost else "running")
        late = [type for _, type, _ in await events_of(store, lease.job_id) if type == "late"]
        assert late == ([] if lost else ["late"])
        async with store.read() as transaction:
            assert len(await transaction.events.figures(lease.job_id, points=9)) == (0 if lost else 1)
    await check_counts(store)


async def test_events_are_numbered_without_gaps_in_the_order_of_commits(store: Store, other: Store) -> None:
    made = await add_job(store)
    seen: list[int] = []

    async def append(place: Store, name: int) -> None:
        async with place.write() as transaction:
            await transaction.events.append(made.job.id, ("a", {"by": name}), ("b", {"by": name}))

    async def follow() -> None:
        while len(seen) < 61:
            async with store.read() as transaction:
                after = seen[-1] if seen else 0
                seen.extend(event.seq for event in await transaction.events.after(made.job.id, after, limit=100))
            await asyncio.sleep(0)

    await asyncio.wait_for(
        asyncio.gather(follow(), *(append((store, other)[index % 2], index) for index in range(30))), 30
    )
    assert seen == list(range(1, 62))  # a follower that asks for what is new misses none
    events = [data["by"] for _, type, data in await events_of(store, made.job.id) if type in "ab"]
    assert events[::2] == events[1::2]  # what one transaction wrote stands together


async def test_an_output_folder_is_one_jobs(store: Store, other: Store) -> None:
    found = await outcomes(*(add_job((store, other)[index % 2]) for index in range(20)))
    assert len({item.output_dir for item in found}) == 20
    assert sum(item.output_dir == "data/loras/face" for item in found) == 1


async def mixed_load(stores: list[Store], *, seconds: float, seed: int) -> None:
    """Everything that a service, its workers and their users do, at random, on few rows so that they meet."""
    draws = random.Random(seed)
    ends_at = asyncio.get_running_loop().time() + seconds
    tenants = (ANN, BOB)
    dataset = {tenant: (await add_dataset(stores[0], tenant)).id for tenant in tenants}
    config = {
        tenant: [(await add_config(stores[0], tenant, name=f"{seed} {index}")).id for index in range(3)]
        for tenant in tenants
    }
    known: dict[str, list[str]] = {tenant: [] for tenant in tenants}

    async def act(store: Store) -> None:
        tenant = draws.choice(tenants)
        id = draws.choice(known[tenant]) if known[tenant] else "none"
        chosen = draws.choice(config[tenant])
        action = draws.randrange(12)
        if action <= 1:
            async with store.write() as transaction:
                await transaction.idempotency_keys.answer(
                    tenant, RequestKey(route="r", key=str(draws.randrange(3)), body_sha256="0")
                )
                await transaction.lock_tenant(tenant)
                job = await transaction.jobs.add(tenant, new_job(dataset_id=dataset[tenant], config_id=chosen))
            known[tenant].append(job.job.id)
        elif action <= 4:
            await train(store)
        elif action == 5:
            await cancel(store, id, tenant=tenant)
        elif action == 6:
            status = draws.choice(["running", "failed", "pending"])
            await report(store, id, tenant=tenant, status=status, seconds=0.01)
        elif action == 7:
            await rescue(store)
        elif action == 8:
            async with store.write() as transaction:
                await transaction.lora_configs.edit(
                    tenant, chosen, lambda found: found.model_copy(update={"is_default": True})
                )
        elif action == 9:
            async with store.write() as transaction:
                await transaction.datasets.edit(
                    tenant, dataset[tenant], lambda found: {"status": draws.choice(["ready", "processing"])}
                )
        elif action == 10:
            async with store.write() as transaction:
                await transaction.pending_jobs.explain_waiting(dataset_wait_seconds=60)
        else:
            async with store.write() as transaction:
                await transaction.lora_configs.remove(tenant, chosen)

    async def train(store: Store) -> None:
        found = await claim(store, running_per_tenant=3, seconds=draws.choice([0.01, 5]))
        if found is None:
            return
        async with store.write() as transaction:
            figures = [StepFigures(step=step, epoch=1, loss=1.0) for step in range(3)]
            await transaction.queue.record(found[0], seconds=5, events=[("e", {})], figures=figures)
        if draws.random() < 0.5:
            await finish(store, found[0])
        else:
            await requeue(store, found[0], draws.choice(["lost", "released", "broken"]))

    async def user(store: Store) -> None:
        while asyncio.get_running_loop().time() < ends_at:
            try:
                await act(store)
            except StoreError:
                raise  # a deadlock is one of these
            except InfluencerAIError:
                pass

    await asyncio.gather(*(user(store) for store in stores for _ in range(6)))


async def all_jobs(store: Store) -> Sequence[Row[Any]]:
    async with store.database.read() as connection:
        return (await connection.execute(select(jobs))).all()


@pytest.mark.slow
async def test_nothing_waits_in_a_circle(store: Store, other: Store, database_url: str) -> None:
    code = "import sys; from tests.store.test_races import run_mixed_load; run_mixed_load(sys.argv[1])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, database_url)
    for seed in itertools.count(3):
        await mixed_load([store, other], seconds=1.5, seed=seed)
        if len(await all_jobs(store)) > 10:  # a busy machine does little in the time
            break
    assert await asyncio.wait_for(process.wait(), 30) == 0
    await check_counts(store)
    for row in await all_jobs(store):
        assert (row.started_at is None) <= (row.status == "pending" or row.cancelled)
        assert (row.finished_at is not None) == (row.status in ("completed", "failed"))
        assert (row.active_config_id is None) == (row.status in ("completed", "failed"))
        assert (row.owner is not None) == (row.status == "running")
        numbers = [seq for seq, _, _ in await events_of(store, row.id)]
        assert numbers == list(range(1, row.last_seq + 1))


def run_mixed_load(url: str) -> None:
    """In another process."""

    async def run() -> None:
        store = Store(url)
        await mixed_load([store], seconds=1.5, seed=2)
        await store.database.close()

    asyncio.run(run())
