"""The queue: who holds a job, and what a holder may write.

A claim raises the job's fence and starts an attempt. Every write of an attempt names its fence and token; one that was
taken over touches nothing and gets a FencedOffError. Leases are on the database's clock: nothing else decides that a
holder is lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, and_, delete, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job import TERMINAL, JobStatus
from influencerai.domain.job_snapshot import first_progress
from influencerai.domain.problem import Problem
from influencerai.errors import ConflictError, FencedOffError
from influencerai.scheduling.placement import Allocation
from influencerai.store.attempts import Attempts
from influencerai.store.counts import Counts
from influencerai.store.dialect import insert_or_set, now
from influencerai.store.events import StepFigures, append_events, write_figures
from influencerai.store.job_rows import NOT_WAITING, StoredJob, stored_job, write_job
from influencerai.store.pending_jobs import ClaimRules, PendingJobs
from influencerai.store.requeue import Requeue, RequeueReason, RetryRules, ended
from influencerai.store.schema import artifacts, attempts, jobs

_LOST = Problem("The worker was lost.", "lost", "See the log of its node; the job is tried again automatically.")
Ending = Literal["completed", "failed", "cancelled"]
# Written out, since SQLite chooses an index of some rows only where it sees that they are meant.
_RUNNING = jobs.c.status == literal_column("'running'")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to write to a job until the lease expires."""

    job_id: str
    tenant_id: str
    fence: int
    token: str


@dataclass(frozen=True, kw_only=True)
class AttemptRequests:
    """Requests to the running attempt (cancel, preempt), returned by every heartbeat."""

    cancel_requested: bool
    preempt_requested: bool
    """Its node is needed for something else: the job continues elsewhere from its last state."""


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file that lies where it is named, written to the disk."""

    name: str
    kind: Literal["lora", "sample"]
    path: str
    size: int
    sha256: str
    step: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a worker that is not ours says of a job; None where it says nothing."""

    status: JobStatus | None = None
    result: Mapping[str, Any] | None = None
    cost_tok: int | None = None

    def columns(self) -> dict[str, Any]:
        """What is said, by column."""
        said = {"status": self.status, "result": self.result, "cost_tok": self.cost_tok}
        return {name: value for name, value in said.items() if value is not None}


class Queue:
    """Jobs of all tenants, for those who train them."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts
        self._attempts = Attempts(connection, counts)
        self._requeue = Requeue(connection, counts)

    async def claim(self, *, node: str, rules: ClaimRules) -> tuple[Lease, StoredJob] | None:
        """Take the next pending job that may run, or None."""
        row = await PendingJobs(self._connection).next(rules)
        return None if row is None else await self._take(row, node=node, seconds=rules.seconds, rules=rules)

    async def take(
        self, tenant: str, id: str, *, node: str, allocation: Allocation, seconds: float, rules: ClaimRules
    ) -> tuple[Lease, StoredJob] | None:
        """Take this pending job for a node that has what it needs; None where somebody else was faster.

        The lease lasts `seconds`, in which the node has to begin with it.
        """
        row = await PendingJobs(self._connection).lock(tenant, id)
        return (
            None
            if row is None
            else await self._take(row, node=node, seconds=seconds, rules=rules, allocation=allocation)
        )

    async def begin(self, lease: Lease, *, allocation: Allocation, seconds: float) -> StoredJob:
        """Say that the node has begun, and what it has really given the attempt.

        Raises:
            FencedOffError: the lease is another's, or its attempt has begun before.
        """
        row = await self._guarded(lease, {"lease_expires_at": now() + round(seconds * 1000)})
        mine = and_(attempts.c.job_id == lease.job_id, attempts.c.fence == lease.fence, attempts.c.begun_at.is_(None))
        statement = update(attempts).where(mine).values(begun_at=now(), held=allocation.to_json())
        if not (await self._connection.execute(statement)).rowcount:
            raise FencedOffError(f"Attempt {lease.fence} at job {lease.job_id} has begun elsewhere.")
        return stored_job(row)

    async def preempt(self, leases: Sequence[tuple[str, int]]) -> None:
        """Ask attempts, by job and fence, to save their state and go back to the queue."""
        for job_id, fence in sorted(leases):
            mine = and_(jobs.c.id == job_id, jobs.c.fence == fence, _RUNNING, jobs.c.recalled_at.is_(None))
            await self._connection.execute(update(jobs).where(mine).values(recalled_at=now()))

    async def _take(
        self, row: Row[Any], *, node: str, seconds: float, rules: ClaimRules, allocation: Allocation | None = None
    ) -> tuple[Lease, StoredJob]:
        token = secrets.token_hex(16)
        values = {
            "status": "running",
            "owner": "ours",
            "fence": row.fence + 1,
            "lease_token": token,
            "lease_expires_at": now() + round(seconds * 1000),
            "result": {"progress": first_progress(row.snapshot)},
            "stage": "starting",
            **NOT_WAITING,
        }
        claimed = await write_job(self._connection, self._counts, row, values)
        await self._attempts.start(
            claimed, node=node, allocation=allocation, tok_per_second=rules.tok_per_device_second
        )
        lease = Lease(job_id=row.id, tenant_id=row.tenant_id, fence=claimed.fence, token=token)
        return lease, stored_job(claimed)

    async def record(
        self,
        lease: Lease,
        *,
        seconds: float,
        progress: Mapping[str, Any] | None = None,
        stage: str | None = None,
        events: Sequence[tuple[str, Mapping[str, Any]]] = (),
        figures: Sequence[StepFigures] = (),
        files: Sequence[PublishedFile] = (),
    ) -> AttemptRequests:
        """Keep the lease for `seconds` from now, and write what has happened; returns the requests to the attempt.

        Raises:
            FencedOffError: the lease is another's.
        """
        values: dict[str, Any] = {"lease_expires_at": now() + round(seconds * 1000)}
        if progress is not None:
            values |= {"result": {"progress": dict(progress)}, "updated_at": now()}
        if stage is not None:
            values |= {"stage": stage, "updated_at": now()}
        row = await self._guarded(lease, values)
        await write_figures(self._connection, lease.job_id, figures)
        for file in files:
            fields = {name: getattr(file, name) for name in PublishedFile.__dataclass_fields__}
            statement = insert_or_set(self._connection, artifacts, *(name for name in fields if name != "name"))
            await self._connection.execute(statement.values(job_id=lease.job_id, created_at=now(), **fields))
        await append_events(self._connection, lease.job_id, events)
        return AttemptRequests(
            cancel_requested=row.cancel_requested_at is not None, preempt_requested=row.recalled_at is not None
        )

    async def withdraw(self, lease: Lease, names: Sequence[str]) -> None:
        """Forget published files of the job, which are gone.

        Raises:
            FencedOffError: the lease is another's.
        """
        if names:
            await self._guarded(lease, {})
            gone = delete(artifacts).where(artifacts.c.job_id == lease.job_id, artifacts.c.name.in_(names))
            await self._connection.execute(gone)

    async def freeze(self, lease: Lease, *, plan: Mapping[str, Any], output_dir: str) -> Mapping[str, Any]:
        """The execution plan of the first attempt, which later ones keep; and the folder that it writes to.

        Raises:
            FencedOffError: the lease is another's.
        """
        row = await self._guarded(lease, {"output_dir": output_dir})
        if row.plan is None:
            # What it needs from now on follows from the plan.
            row = await self._guarded(lease, {"plan": dict(plan), "needs": None})
        frozen: Mapping[str, Any] = row.plan
        return frozen

    async def finish(
        self,
        lease: Lease,
        *,
        ending: Ending,
        result: Mapping[str, Any],
        problem: Problem | None = None,
    ) -> None:
        """End the attempt and the job.

        Raises:
            FencedOffError: the lease is another's.
        """
        row = await self._guarded(lease, {})
        status = "completed" if ending == "completed" else "failed"
        values = {
            "status": status,
            "cancelled": ending == "cancelled",
            "result": dict(result),
            "error_code": None if problem is None else problem.code,
        }
        await write_job(self._connection, self._counts, row, values)
        await self._attempts.end(row, ending, problem)
        await append_events(self._connection, lease.job_id, [("status", ended(status, ending, problem))])

    async def requeue(self, lease: Lease, how: RequeueReason, *, problem: Problem | None, retries: RetryRules) -> None:
        """Return the job to the queue, or end it where the budget for this is spent or it is to be cancelled.

        Raises:
            FencedOffError: the lease is another's.
        """
        row = await self._guarded(lease, {})
        await self._requeue.requeue(row, how, problem=problem, retries=retries)

    async def requeue_unbegun(self, lease: Lease, *, problem: Problem, pause_seconds: float) -> None:
        """Return a job whose node has not begun with it; that is no failure of the job's, and is tried again later.

        Raises:
            FencedOffError: the lease is another's, or its attempt has begun.
        """
        row = await self._guarded(lease, {})
        mine = and_(attempts.c.job_id == lease.job_id, attempts.c.fence == lease.fence, attempts.c.begun_at.is_(None))
        if (await self._connection.execute(select(attempts.c.fence).where(mine))).one_or_none() is None:
            raise FencedOffError(f"Attempt {lease.fence} at job {lease.job_id} has begun.")
        returned = await self._requeue.requeue(row, "released", problem=problem, retries=RetryRules())
        later = update(jobs).where(jobs.c.id == lease.job_id, jobs.c.status == "pending")
        if returned.status == "pending":
            await self._connection.execute(later.values(not_before=now() + round(1000 * pause_seconds)))

    async def rescue(self, *, retries: RetryRules, limit: int = 100) -> int:
        """Requeue jobs whose lease has expired. Returns how many."""
        statement = (
            select(jobs)
            .where(_RUNNING, jobs.c.lease_expires_at < now())
            .order_by(jobs.c.lease_expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = (await self._connection.execute(statement)).all()
        for row in rows:
            await self._requeue.requeue(row, "lost", problem=_LOST, retries=retries)
        return len(rows)

    async def report(
        self, tenant: str, id: str, decide: Callable[[StoredJob], Report], *, seconds: float
    ) -> StoredJob | None:
        """Write what a worker that is not ours says of a job; None where there is no such job.

        `decide` sees the locked job and raises what the sender did wrong. While the sender holds the job, its lease is
        kept for `seconds` from now; a job that it sets to `pending` is given back.

        Raises:
            ConflictError: the job has ended, and its status would change.
        """
        row = await self._locked(tenant, id)
        if row is None:
            return None
        said = decide(stored_job(row))
        values = said.columns()
        claims = said.status == "running" and row.status == "pending"
        holds = row.status == "running" and row.owner == "external" and said.status in (None, "running")
        if claims or holds:
            values |= {"owner": "external", "lease_expires_at": now() + round(seconds * 1000), **NOT_WAITING}
        if claims:
            values["fence"] = row.fence + 1
        if not values:
            return stored_job(row)
        if row.status == "running" and said.status == "pending":
            return stored_job(await self._requeue.requeue(row, "released", problem=None, retries=RetryRules()))
        written = await write_job(self._connection, self._counts, row, values)
        if claims:
            await self._attempts.start(written, node="external", devices=0)
        elif written.status != row.status:
            await self._attempts.end(row, written.status, None)
            data = ended(written.status, written.status, None)
            await append_events(self._connection, id, [("status", data)])
        progress = (said.result or {}).get("progress")
        if written.status == "running" and isinstance(progress, Mapping):  # a stranger's result may hold anything
            await append_events(self._connection, id, [("progress", progress)])
        return stored_job(written)

    async def cancel(self, tenant: str, id: str, decide: Callable[[StoredJob], bool]) -> StoredJob | None:
        """Ask for the end of a job, if `decide` says so or does not raise; None where there is no such job.

        What no attempt of ours holds ends at once; an attempt hears of it with its next write. What was asked for
        before is not asked for again.

        Raises:
            ConflictError: the job has ended.
        """
        row = await self._locked(tenant, id)
        if row is None:
            return None
        if not decide(stored_job(row)) or row.cancelled or row.cancel_requested_at is not None:
            return stored_job(row)
        if row.status in TERMINAL:
            raise ConflictError(f"Job {id} has ended: it is {row.status}")
        if row.status == "running" and row.owner == "ours":
            statement = update(jobs).where(jobs.c.id == id).values(cancel_requested_at=now(), updated_at=now())
            asked = (await self._connection.execute(statement.returning(jobs))).one()
            await append_events(self._connection, id, [("cancel", {})])
            return stored_job(asked)
        cancelled = await write_job(self._connection, self._counts, row, await self._requeue.cancelled(row))
        await self._attempts.end(row, "cancelled", None)
        await append_events(self._connection, id, [("status", ended("failed", "cancelled", None))])
        return stored_job(cancelled)

    async def _locked(self, tenant: str, id: str) -> Row[Any] | None:
        statement = select(jobs).where(jobs.c.tenant_id == tenant, jobs.c.id == id).with_for_update()
        return (await self._connection.execute(statement)).one_or_none()

    async def _guarded(self, lease: Lease, values: Mapping[str, Any]) -> Row[Any]:
        """Write to the job if the lease still holds it; the row as it is now, locked.

        Raises:
            FencedOffError: another attempt, or the end, came in between.
        """
        mine = and_(
            jobs.c.id == lease.job_id,
            jobs.c.fence == lease.fence,
            jobs.c.lease_token == lease.token,
            jobs.c.status == "running",
        )
        statement = update(jobs).where(mine).values({"fence": lease.fence, **values}).returning(jobs)
        row: Row[Any] | None = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            raise FencedOffError(f"Job {lease.job_id} is not held by attempt {lease.fence} any more.")
        return row
