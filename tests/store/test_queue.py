"""The queue: whose turn it is, who holds a job, what a holder may write, and how a job ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from sqlalchemy import update

from influencerai.domain.job import JobStatus
from influencerai.domain.problem import CANCELLATION, Problem
from influencerai.errors import ConflictError, FencedOffError
from influencerai.store import Store
from influencerai.store.events import StepFigures
from influencerai.store.pending_jobs import WAITING_FOR_WORKER
from influencerai.store.queue import Lease, PublishedFile, Report
from influencerai.store.requeue import GIVEN_UP, RequeueReason, RetryRules
from influencerai.store.schema import jobs
from influencerai.store.times import MILLISECONDS_PER_DAY, to_milliseconds
from tests.store.rows import (
    ANN,
    BOB,
    PROGRESS,
    RETRIES,
    add_dataset,
    add_job,
    cancel,
    check_counts,
    claim,
    claimed,
    events_of,
    finish,
    report,
    requeue,
    rescue,
    rules,
    stored,
)

pytestmark = pytest.mark.anyio

CANCELLED = {**CANCELLATION.to_wire(), "cancelled": True, "epoch": 0, "partialCheckpoints": []}


async def make_due(store: Store, id: str) -> None:
    """Let a job's back-off be over."""
    async with store.database.write() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == id).values(not_before=0))


async def record(store: Store, lease: Lease, **written: Any) -> bool:
    async with store.write() as transaction:
        return (await transaction.queue.record(lease, seconds=60, **written)).cancel_requested


async def attempts_of(store: Store, id: str) -> list[tuple[int, str, str | None]]:
    async with store.read() as transaction:
        return [(row["fence"], row["node"], row["outcome"]) for row in await transaction.jobs.attempts(ANN, id)]


async def test_a_claim_starts_the_job(store: Store) -> None:
    assert await claim(store) is None
    made = await add_job(store)
    found = await claim(store)
    assert found is not None
    lease, job = found
    assert (lease.job_id, lease.tenant_id, lease.fence) == (made.job.id, ANN, 1)
    assert job == await stored(store, made.job.id)
    assert (job.job.status, job.job.result, job.owner, job.fence) == ("running", {"progress": PROGRESS}, "ours", 1)
    assert job.job.started_at is not None
    assert await attempts_of(store, made.job.id) == [(1, "node-1", None)]
    assert (await events_of(store, made.job.id))[1:] == [
        (2, "status", {"status": "running", "attempt": 1, "node": "node-1"})
    ]
    assert await claim(store) is None


async def test_a_finished_job_has_its_times_its_result_and_no_holder(store: Store) -> None:
    for index, (ending, status, cancelled) in enumerate(
        [("completed", "completed", False), ("failed", "failed", False), ("cancelled", "failed", True)]
    ):
        dataset = await add_dataset(store)
        made = await add_job(store, dataset_id=dataset.id, output_dir=str(index))
        lease = await claimed(store)
        began = (await stored(store, made.job.id)).job.started_at
        await finish(store, lease, ending, problem=Problem("why", "training", "Do it."))
        job = await stored(store, made.job.id)
        assert (job.job.status, job.job.result, job.owner, job.dataset_id) == (status, {"loraPath": "x"}, None, None)
        assert job.job.started_at == began
        assert job.job.finished_at is not None
        assert await attempts_of(store, made.job.id) == [(1, "node-1", ending)]
        assert (await events_of(store, made.job.id))[-1][2] == {
            "status": status,
            "outcome": ending,
            "error": "why",
            "code": "training",
            "remedy": "Do it.",
        }
        with pytest.raises(FencedOffError):
            await finish(store, lease, ending)
        async with store.read() as transaction:
            assert await transaction.counts.total(ANN, "job", first="cancelled") == int(cancelled)
    await check_counts(store)


async def test_tenants_take_turns_and_within_one_priority_and_age_decide(store: Store) -> None:
    low = await add_job(store, priority=1)
    first = await add_job(store, output_dir="b")
    second = await add_job(store, output_dir="c")
    high = await add_job(store, priority=10, output_dir="d")
    bobs = [await add_job(store, BOB, priority=1, output_dir=str(index)) for index in range(2)]
    order = []
    while found := await claim(store):
        order.append(found[0].job_id)
    anns = [item.job.id for item in (high, first, second, low)]
    assert [id for id in order if id in anns] == anns
    assert [id for id in order if id not in anns] == [item.job.id for item in bobs]
    assert order[1] == bobs[0].job.id
    assert order[3] == bobs[1].job.id


async def test_a_tenant_runs_only_so_many(store: Store) -> None:
    for index in range(3):
        await add_job(store, output_dir=str(index))
    bobs = await add_job(store, BOB)
    leases = [await claimed(store, running_per_tenant=2) for _ in range(3)]
    assert sorted(lease.tenant_id for lease in leases) == [ANN, ANN, BOB]
    assert bobs.job.id in [lease.job_id for lease in leases]
    assert await claim(store, running_per_tenant=2) is None
    await finish(store, next(lease for lease in leases if lease.tenant_id == ANN))
    assert (await claimed(store, running_per_tenant=2)).tenant_id == ANN


async def test_a_job_waits_for_its_dataset_and_says_so(store: Store) -> None:
    dataset = await add_dataset(store, status="pending")
    made = await add_job(store, dataset_id=dataset.id)

    async def explain(seconds: float = 600) -> list[tuple[str, str]]:
        async with store.write() as transaction:
            return await transaction.pending_jobs.explain_waiting(dataset_wait_seconds=seconds)

    async def set_status(status: str) -> None:
        async with store.write() as transaction:
            await transaction.datasets.edit(ANN, dataset.id, lambda _: {"status": status})

    assert await claim(store) is None
    assert await explain() == await explain() == [(ANN, dataset.id)]
    assert (
        await stored(store, made.job.id)
    ).job.waiting == "Its dataset is pending; it fails when that does not change."
    await set_status("processing")
    assert await explain() == [(ANN, dataset.id)]
    assert "processing" in str((await stored(store, made.job.id)).job.waiting)
    assert await claim(store) is None
    await set_status("ready")
    assert await explain() == []
    assert (await stored(store, made.job.id)).job.waiting == WAITING_FOR_WORKER
    await set_status("pending")
    await explain()
    await asyncio.sleep(0.02)
    assert await explain(seconds=0.01) == []  # it has waited long enough: a worker finds out what is wrong
    assert (await claimed(store, dataset_wait_seconds=0.01)).job_id == made.job.id
    assert (await stored(store, made.job.id)).job.waiting is None


@pytest.mark.parametrize("status", ["ready", "failed"])
async def test_a_dataset_that_is_decided_keeps_nobody_waiting(store: Store, status: Any) -> None:
    dataset = await add_dataset(store, status=status)
    await add_job(store, dataset_id=dataset.id)
    assert await claim(store)


async def test_a_lease_lasts_on_the_databases_clock_and_is_renewed_by_writing(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store, seconds=0.3)
    assert await rescue(store) == 0
    for _ in range(4):
        await asyncio.sleep(0.1)
        async with store.write() as transaction:
            await transaction.queue.record(lease, seconds=0.3)
    assert await rescue(store) == 0
    await asyncio.sleep(0.35)
    assert await rescue(store) == 1
    assert await rescue(store) == 0
    job = await stored(store, made.job.id)
    assert (job.job.status, job.job.result, job.owner) == ("pending", None, None)
    assert job.job.waiting == "The worker was lost."
    assert await attempts_of(store, made.job.id) == [(1, "node-1", "lost")]
    await check_counts(store)


async def test_an_attempt_that_lost_its_job_writes_nothing(store: Store) -> None:
    made = await add_job(store)
    old = await claimed(store, seconds=0)
    await asyncio.sleep(0.01)
    assert await rescue(store) == 1

    async def check_nothing_is_written() -> None:
        before = await stored(store, made.job.id), await events_of(store, made.job.id)
        figures = [StepFigures(step=1, epoch=1, loss=0.5)]
        file = PublishedFile(name="a", kind="lora", path="a", size=1, sha256="0", step=1, epoch=1)
        with pytest.raises(FencedOffError):
            await record(store, old, progress={"currentEpoch": 9}, events=[("x", {})], figures=figures, files=[file])
        with pytest.raises(FencedOffError):
            async with store.write() as transaction:
                await transaction.queue.freeze(old, plan={"old": True}, output_dir="old")
        with pytest.raises(FencedOffError):
            await finish(store, old)
        with pytest.raises(FencedOffError):
            await requeue(store, old, "broken")
        assert (await stored(store, made.job.id), await events_of(store, made.job.id)) == before
        async with store.read() as transaction:
            assert await transaction.events.figures(made.job.id, points=9) == []
            assert await transaction.jobs.artifacts(ANN, made.job.id) == []

    await check_nothing_is_written()
    await make_due(store, made.job.id)
    new = await claimed(store)
    assert new.fence > old.fence
    await check_nothing_is_written()
    forged = Lease(job_id=new.job_id, tenant_id=ANN, fence=new.fence, token=old.token)
    with pytest.raises(FencedOffError):
        await record(store, forged)
    await finish(store, new)
    await check_nothing_is_written()


async def test_started_at_is_never_reset_and_finished_at_is_set_once(store: Store) -> None:
    made = await add_job(store)
    await claimed(store, seconds=0)
    began = (await stored(store, made.job.id)).job.started_at
    await asyncio.sleep(0.01)
    await rescue(store)
    assert (await stored(store, made.job.id)).job.started_at == began
    await make_due(store, made.job.id)
    await finish(store, await claimed(store))
    ended = (await stored(store, made.job.id)).job
    assert ended.started_at == began
    await asyncio.sleep(0.01)
    await report(store, made.job.id, cost_tok=7)
    paid = (await stored(store, made.job.id)).job
    assert (paid.started_at, paid.finished_at, paid.cost_tok) == (began, ended.finished_at, 7)


async def test_lost_and_broken_attempts_have_budgets_of_their_own(store: Store) -> None:
    made = await add_job(store)
    fences = []
    for how in ("lost", "released", "broken", "lost", "released", "released"):
        lease = await claimed(store)
        fences.append(lease.fence)
        await requeue(store, lease, how, error=f"It was {how}.")
        job = await stored(store, made.job.id)
        assert (job.job.status, job.job.waiting) == ("pending", f"It was {how}.")
        await make_due(store, made.job.id)
    assert fences == sorted(set(fences))
    lease = await claimed(store)
    await record(store, lease, progress={"currentEpoch": 2})
    await requeue(store, lease, "lost", error="Gone.")
    job = await stored(store, made.job.id)
    assert job.job.status == "failed"
    assert job.job.result == {
        "error": "Given up after 4 attempts that ended without your fault, the last one so: Gone.",
        "code": "lost",
        "remedy": GIVEN_UP,
        "epoch": 2,
        "partialCheckpoints": [],
    }
    await check_counts(store)


async def test_a_job_that_is_given_up_names_the_files_that_are_left(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    made_of: list[tuple[str, Literal["lora", "sample"], int]] = [
        ("b", "lora", 2),
        ("a", "lora", 3),
        ("gone", "lora", 1),
        ("s", "sample", 1),
    ]
    files = [
        PublishedFile(name=name, kind=kind, path=name, size=1, sha256="0", step=step, epoch=step)
        for name, kind, step in made_of
    ]
    await record(store, lease, files=files, progress={"currentEpoch": 3})
    async with store.write() as transaction:
        await transaction.queue.withdraw(lease, ["gone"])
    await cancel(store, made.job.id)
    await requeue(store, lease, "lost")
    job = (await stored(store, made.job.id)).job
    assert job.result == {**CANCELLED, "epoch": 3, "partialCheckpoints": ["b", "a"]}
    with pytest.raises(FencedOffError):
        async with store.write() as transaction:
            await transaction.queue.withdraw(lease, ["b"])
    async with store.read() as transaction:
        assert [file.name for file in await transaction.jobs.artifacts(ANN, made.job.id)] == ["s", "b", "a"]


async def test_a_broken_attempt_too_many_ends_the_job(store: Store) -> None:
    made = await add_job(store)
    for status in ("pending", "failed"):
        await requeue(store, await claimed(store), "broken")
        assert (await stored(store, made.job.id)).job.status == status
        await make_due(store, made.job.id)


async def test_a_job_rests_longer_after_each_failure_of_the_machine(store: Store) -> None:
    made = await add_job(store)
    retries = RetryRules(seconds=8)
    rests: list[tuple[RequeueReason, int]] = [("released", 0), ("lost", 0), ("broken", 8), ("lost", 0), ("broken", 16)]
    for how, seconds in rests:
        lease = await claimed(store)
        async with store.write() as transaction:
            await transaction.queue.requeue(lease, how, problem=None, retries=retries)
        async with store.database.read() as connection:
            row = (await connection.execute(jobs.select().where(jobs.c.id == made.job.id))).one()
        assert abs(row.not_before - row.updated_at - 1000 * seconds) < 100
        assert seconds == 0 or await claim(store) is None
        await make_due(store, made.job.id)


async def test_a_pending_job_is_cancelled_at_once_and_has_never_started(store: Store) -> None:
    dataset = await add_dataset(store)
    made = await add_job(store, dataset_id=dataset.id)
    ended = await cancel(store, made.job.id)
    assert ended is not None
    assert (ended.job.status, ended.job.result) == ("failed", CANCELLED)
    assert (ended.job.started_at, ended.dataset_id) == (None, None)
    assert ended.job.finished_at is not None
    assert await claim(store) is None
    assert await cancel(store, made.job.id) == ended
    await check_counts(store)


async def test_our_attempt_is_asked_to_end_and_hears_of_it_with_its_next_write(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    assert not await record(store, lease)
    asked = await cancel(store, made.job.id)
    assert asked is not None
    assert (asked.job.status, asked.job.cancel_requested) == ("running", True)
    assert await cancel(store, made.job.id) == asked
    assert [type for _, type, _ in await events_of(store, made.job.id)] == ["status", "status", "cancel"]
    assert await record(store, lease)
    await finish(store, lease, "cancelled")
    await check_counts(store)


@pytest.mark.parametrize("how", ["lost", "broken", "released"])
async def test_a_job_that_was_to_be_cancelled_does_not_come_back(store: Store, how: Any) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    await cancel(store, made.job.id)
    await requeue(store, lease, how)
    job = (await stored(store, made.job.id)).job
    assert (job.status, job.result) == ("failed", CANCELLED)
    async with store.read() as transaction:
        assert await transaction.counts.total(ANN, "job", first="cancelled") == 1


async def test_a_job_may_complete_although_its_end_was_asked_for(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    await cancel(store, made.job.id)
    await finish(store, lease, "completed")
    with pytest.raises(ConflictError, match="completed"):
        await cancel_ended(store, made.job.id)


async def cancel_ended(store: Store, id: str) -> None:
    async with store.database.write() as connection:  # as if nobody had asked before
        await connection.execute(update(jobs).where(jobs.c.id == id).values(cancel_requested_at=None))
    await cancel(store, id)


async def test_an_external_worker_takes_keeps_and_ends_a_job(store: Store) -> None:
    made = await add_job(store)
    taken = await report(store, made.job.id, status="running", seconds=0.3, result={"progress": PROGRESS})
    assert taken is not None
    assert (taken.job.status, taken.owner, taken.fence) == ("running", "external", 1)
    assert taken.job.started_at is not None
    assert await claim(store) is None
    for said in ({}, {"status": "running"}, {"result": {"progress": {"currentEpoch": 1}}}, {"cost_tok": 3}):
        await asyncio.sleep(0.1)
        await report(store, made.job.id, seconds=0.3, **said)
        assert await rescue(store) == 0
    ended = await report(store, made.job.id, status="completed", result={"loraPath": "y"})
    assert ended is not None
    assert (ended.job.status, ended.owner, ended.job.started_at) == ("completed", None, taken.job.started_at)
    assert [(type, data) for _, type, data in await events_of(store, made.job.id)] == [
        ("status", {"status": "pending"}),
        ("status", {"status": "running", "attempt": 1, "node": "external"}),
        ("progress", PROGRESS),
        ("progress", {"currentEpoch": 1}),
        ("status", {"status": "completed", "outcome": "completed"}),
    ]
    assert await attempts_of(store, made.job.id) == [(1, "external", "completed")]
    await check_counts(store)


async def test_an_external_worker_that_falls_silent_is_lost(store: Store) -> None:
    made = await add_job(store)
    await report(store, made.job.id, status="running", seconds=0)
    await asyncio.sleep(0.01)
    assert await rescue(store) == 1
    assert (await stored(store, made.job.id)).job.status == "pending"
    await make_due(store, made.job.id)
    lease = await claimed(store)
    assert await attempts_of(store, made.job.id) == [(1, "external", "lost"), (lease.fence, "node-1", None)]


async def test_an_external_worker_gives_a_job_back(store: Store) -> None:
    made = await add_job(store)
    await report(store, made.job.id, status="running")
    back = await report(store, made.job.id, status="pending")
    assert back is not None
    assert (back.job.status, back.owner, back.job.result) == ("pending", None, None)
    assert await attempts_of(store, made.job.id) == [(1, "external", "released")]
    assert (await claimed(store)).fence > 1
    await check_counts(store)


async def test_a_job_of_an_external_worker_is_cancelled_at_once(store: Store) -> None:
    made = await add_job(store)
    await report(store, made.job.id, status="running")
    ended = await cancel(store, made.job.id)
    assert ended is not None
    assert (ended.job.status, ended.owner) == ("failed", None)
    assert await attempts_of(store, made.job.id) == [(1, "external", "cancelled")]
    with pytest.raises(ConflictError):
        await report(store, made.job.id, status="running")
    await check_counts(store)


@pytest.mark.parametrize("progress", [50, "half", [1], None, {}])
async def test_a_strangers_progress_may_be_anything(store: Store, progress: Any) -> None:
    made = await add_job(store)
    await report(store, made.job.id, status="running", result={"progress": progress})
    assert (await stored(store, made.job.id)).job.result == {"progress": progress}


async def test_the_same_status_again_changes_nothing_else(store: Store) -> None:
    made = await add_job(store)
    again = await report(store, made.job.id, status="pending")
    assert again is not None
    assert again.job.model_copy(update={"updated_at": made.job.updated_at}) == made.job
    assert len(await events_of(store, made.job.id)) == 1
    for status in ("completed", "completed"):
        ended = await report(store, made.job.id, status=status)
        assert ended is not None
        assert ended.job.status == "completed"
        assert ended.job.started_at is not None
    assert len(await events_of(store, made.job.id)) == 2


STATUSES: tuple[JobStatus, ...] = ("pending", "running", "completed", "failed")


@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_nothing_leaves_a_terminal_state(store: Store, end: Any) -> None:
    made = await add_job(store)
    await report(store, made.job.id, status=end)
    before = await stored(store, made.job.id)

    for status in STATUSES:
        if status != end:
            with pytest.raises(ConflictError, match=f"it is {end}"):
                await report(store, made.job.id, status=status)
    with pytest.raises(ConflictError):
        await cancel(store, made.job.id)
    assert await stored(store, made.job.id) == before
    await check_counts(store)


async def test_a_report_on_our_job_that_says_nothing_does_not_take_it(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    unchanged = await report(store, made.job.id)
    assert unchanged is not None
    assert unchanged.owner == "ours"
    assert not await record(store, lease)

    def refuse(job: Any) -> Report:
        assert job.owner == "ours"
        raise ConflictError("ours")

    with pytest.raises(ConflictError):
        async with store.write() as transaction:
            await transaction.queue.report(ANN, made.job.id, refuse, seconds=9)
    assert not await record(store, lease)


async def test_the_first_plan_is_kept(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    async with store.write() as transaction:
        assert await transaction.queue.freeze(lease, plan={"micro": 2}, output_dir="a") == {"micro": 2}
    await requeue(store, lease, "released")
    async with store.write() as transaction:
        found = await transaction.queue.claim(node="n", rules=rules())
        assert found is not None
        assert await transaction.queue.freeze(found[0], plan={"micro": 4}, output_dir="b") == {"micro": 2}
    job = await stored(store, made.job.id)
    assert (job.plan, job.output_dir) == ({"micro": 2}, "b")


async def test_what_an_attempt_records_is_there(store: Store) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    file = PublishedFile(name="a-1.safetensors", kind="lora", path="out/a-1", size=5, sha256="0" * 64, step=4, epoch=1)
    await record(
        store,
        lease,
        progress={"currentEpoch": 1},
        events=[("stage", {"stage": "training"}), ("step", {"step": 4})],
        figures=[
            StepFigures(step=step, epoch=1, loss=step / 8, learning_rate=1e-4, images_per_second=2.0 * step)
            for step in (1, 2, 3, 4)
        ],
        files=[file],
    )
    await record(store, lease, figures=[StepFigures(step=4, epoch=1, validation_loss=0.25)])
    again = PublishedFile(name="a-1.safetensors", kind="lora", path="out/a-1", size=6, sha256="1" * 64, step=4, epoch=1)
    sample = PublishedFile(name="s.png", kind="sample", path="out/s", size=9, sha256="2" * 64, step=2, epoch=1)
    await record(store, lease, files=[again, sample], figures=[StepFigures(step=3, epoch=1, loss=9.0)])
    assert (await stored(store, made.job.id)).job.result == {"progress": {"currentEpoch": 1}}
    assert [seq for seq, _, _ in await events_of(store, made.job.id)] == [1, 2, 3, 4]
    async with store.read() as transaction:
        figures = await transaction.events.figures(made.job.id, points=100)
        files = await transaction.jobs.artifacts(ANN, made.job.id)
        assert await transaction.events.speed(made.job.id) == pytest.approx((2 + 4 + 6 + 8) / 4)
        assert await transaction.events.last_numbers([made.job.id, "none"]) == {made.job.id: (4, "running")}
        assert await transaction.events.last_numbers([]) == {}
        assert [event.seq for event in await transaction.events.after(made.job.id, 2, limit=1)] == [3]
    assert [(item.step, item.loss, item.validation_loss) for item in figures] == [
        (1, 0.125, None),
        (2, 0.25, None),
        (3, 9.0, None),
        (4, 0.5, 0.25),
    ]
    assert figures[2].learning_rate == 1e-4  # what is None leaves the old value
    assert [(item.name, item.size, item.kind) for item in files] == [
        ("s.png", 9, "sample"),
        ("a-1.safetensors", 6, "lora"),
    ]


@pytest.mark.parametrize(("every", "points"), [(1, 50), (10, 50), (7, 2), (1, 2000), (1, 1)])
async def test_figures_are_thinned_evenly(store: Store, every: int, points: int) -> None:
    made = await add_job(store)
    lease = await claimed(store)
    steps = list(range(every, 1000 * every, every))
    figures = [StepFigures(step=step, epoch=1, loss=1.0) for step in steps]
    await record(store, lease, figures=[*figures, StepFigures(step=steps[33], epoch=1, validation_loss=0.5)])
    async with store.read() as transaction:
        found = [item.step for item in await transaction.events.figures(made.job.id, points=points)]
    assert found[0] == steps[0]
    assert found[-1] == steps[-1]
    assert steps[33] in found
    assert min(points, len(steps)) * 0.9 <= len(found) <= max(points, 2) + 2


async def test_jobs_are_counted_by_the_day_of_their_end_or_else_their_creation(store: Store) -> None:
    made = [await add_job(store, output_dir=str(index)) for index in range(4)]
    await add_job(store, BOB)
    noon = to_milliseconds(datetime(2024, 2, 29, 12, tzinfo=UTC))
    day = noon // MILLISECONDS_PER_DAY

    async def set_times(id: str, **times: Any) -> None:
        async with store.database.write() as connection:
            await connection.execute(update(jobs).where(jobs.c.id == id).values(times))

    last = (day + 1) * MILLISECONDS_PER_DAY
    await report(store, made[0].job.id, status="completed")
    await set_times(made[0].job.id, created_at=0, finished_at=last - 1)
    await report(store, made[1].job.id, status="completed")
    await set_times(made[1].job.id, created_at=0, finished_at=last)
    await set_times(made[2].job.id, created_at=noon)
    await set_times(made[3].job.id, created_at=noon - 9 * MILLISECONDS_PER_DAY)
    async with store.read() as transaction:
        assert await transaction.jobs.per_day(ANN, since=day) == {
            (day, "completed"): 1,
            (day + 1, "completed"): 1,
            (day, "pending"): 1,
        }
        assert await transaction.jobs.per_day(ANN, since=day + 2) == {}


async def test_the_newest_completed_jobs(store: Store) -> None:
    made = [await add_job(store, output_dir=str(index)) for index in range(4)]
    for item in made[:3]:
        await report(store, item.job.id, status="completed")
    async with store.read() as transaction:
        found = await transaction.jobs.last_completed(ANN, limit=2)
    assert [item.job.id for item in found] == [made[2].job.id, made[1].job.id]


async def test_reaping_takes_many_and_counts_them(store: Store) -> None:
    for index in range(7):
        await add_job(store, output_dir=str(index))
        await claimed(store, seconds=0)
    await asyncio.sleep(0.01)
    async with store.write() as transaction:
        assert await transaction.queue.rescue(retries=RETRIES, limit=5) == 5
    assert await rescue(store) == 2
    await check_counts(store)
