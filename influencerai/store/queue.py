"""The queue: who holds a job, and what a holder may write.

A claim raises the job's fence and starts an attempt. Every write of an attempt names its fence and token; one that was
taken over touches nothing and gets a FencedOffError. Leases are on the database's clock: nothing else decides that a
holder is lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from sqlalchemy import Row, and_, delete, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.job import TERMINAL, JobStatus, first_progress
from influencerai.errors import ConflictError, FencedOffError
from influencerai.settings import Settings
from influencerai.store.attempts import Attempts
from influencerai.store.counts import Counts
from influencerai.store.dialect import insert_or_set, now
from influencerai.store.events import StepFigures, append_events, write_figures
from influencerai.store.jobs import StoredJob, stored_job, write_job
from influencerai.store.schema import artifacts, jobs
from influencerai.store.turns import WAITING_FOR_WORKER, ClaimRules, Turns

Ending = Literal["completed", "failed", "cancelled"]
Return = Literal["lost", "broken", "released"]
"""How an attempt gives its job back: its worker vanished, the machine failed it, or it was asked to."""
# Written out, since SQLite chooses an index of some rows only where it sees that they are meant.
_RUNNING = jobs.c.status == literal_column("'running'")
_LONGEST_DELAY_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to write to a job until the lease expires."""

    job_id: str
    tenant_id: str
    fence: int
    token: str


@dataclass(frozen=True, kw_only=True)
class RetryRules:
    """How often, and after what pause, a job is tried again whose attempts end without its user's fault."""

    lost: int = 5
    """Attempts whose worker may vanish before the job fails; the lease that ran out was pause enough."""
    broken: int = 3
    """Attempts that the machine may fail before the job fails."""
    seconds: float = 10
    """The pause after the first of those; it doubles with each."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(lost=settings.lost_attempts, broken=settings.broken_attempts, seconds=settings.retry_seconds)

    def delay_seconds(self, broken: int) -> float:
        """Before the next attempt, after `broken` that the machine has failed."""
        return min(_LONGEST_DELAY_SECONDS, self.seconds * 2.0 ** (broken - 1))


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

    async def claim(self, *, node: str, rules: ClaimRules) -> tuple[Lease, StoredJob] | None:
        """Take the next pending job that may run, or None."""
        row = await Turns(self._connection, self._counts).next(rules)
        if row is None:
            return None
        token = secrets.token_hex(16)
        values = {
            "status": "running",
            "owner": "ours",
            "fence": row.fence + 1,
            "lease_token": token,
            "lease_expires_at": now() + round(rules.seconds * 1000),
            "result": {"progress": first_progress(row.snapshot)},
            "waiting": None,
        }
        claimed = await write_job(self._connection, self._counts, row, values)
        await self._attempts.start(claimed, node=node, devices=1)
        lease = Lease(job_id=row.id, tenant_id=row.tenant_id, fence=claimed.fence, token=token)
        return lease, stored_job(claimed)

    async def record(
        self,
        lease: Lease,
        *,
        seconds: float,
        progress: Mapping[str, Any] | None = None,
        events: Sequence[tuple[str, Mapping[str, Any]]] = (),
        figures: Sequence[StepFigures] = (),
        files: Sequence[PublishedFile] = (),
    ) -> bool:
        """Keep the lease for `seconds` from now, and write what has happened; whether the job is to be cancelled.

        Raises:
            FencedOffError: the lease is another's.
        """
        values: dict[str, Any] = {"lease_expires_at": now() + round(seconds * 1000)}
        if progress is not None:
            values |= {"result": {"progress": dict(progress)}, "updated_at": now()}
        row = await self._guarded(lease, values)
        await write_figures(self._connection, lease.job_id, figures)
        for file in files:
            fields = {name: getattr(file, name) for name in PublishedFile.__dataclass_fields__}
            statement = insert_or_set(self._connection, artifacts, *(name for name in fields if name != "name"))
            await self._connection.execute(statement.values(job_id=lease.job_id, created_at=now(), **fields))
        await append_events(self._connection, lease.job_id, events)
        return row.cancel_requested_at is not None

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
            row = await self._guarded(lease, {"plan": dict(plan)})
        frozen: Mapping[str, Any] = row.plan
        return frozen

    async def finish(
        self,
        lease: Lease,
        *,
        ending: Ending,
        result: Mapping[str, Any],
        error: str | None = None,
        code: str | None = None,
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
            "error_code": code,
        }
        await write_job(self._connection, self._counts, row, values)
        await self._attempts.end(row, ending, error)
        await append_events(self._connection, lease.job_id, [("status", _status(status, ending, error))])

    async def give_back(self, lease: Lease, how: Return, *, error: str | None, retries: RetryRules) -> None:
        """Return the job to the queue, or end it where the budget for this is spent or it is to be cancelled.

        Raises:
            FencedOffError: the lease is another's.
        """
        row = await self._guarded(lease, {})
        await self._return(row, how, error=error, retries=retries)

    async def reap(self, *, retries: RetryRules, limit: int = 100) -> int:
        """Take back jobs whose lease has expired. Returns how many."""
        statement = (
            select(jobs)
            .where(_RUNNING, jobs.c.lease_expires_at < now())
            .order_by(jobs.c.lease_expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = (await self._connection.execute(statement)).all()
        for row in rows:
            await self._return(row, "lost", error="The worker was lost.", retries=retries)
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
            values |= {"owner": "external", "lease_expires_at": now() + round(seconds * 1000), "waiting": None}
        if claims:
            values["fence"] = row.fence + 1
        if not values:
            return stored_job(row)
        if row.status == "running" and said.status == "pending":
            return stored_job(await self._return(row, "released", error=None, retries=RetryRules()))
        written = await write_job(self._connection, self._counts, row, values)
        if claims:
            await self._attempts.start(written, node="external", devices=0)
        elif written.status != row.status:
            await self._attempts.end(row, written.status, None)
            data = _status(written.status, written.status, None)
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
        ended = await write_job(self._connection, self._counts, row, await self._cancelled(row))
        await self._attempts.end(row, "cancelled", None)
        await append_events(self._connection, id, [("status", _status("failed", "cancelled", None))])
        return stored_job(ended)

    async def _locked(self, tenant: str, id: str) -> Row[Any] | None:
        statement = select(jobs).where(jobs.c.tenant_id == tenant, jobs.c.id == id).with_for_update()
        return (await self._connection.execute(statement)).one_or_none()

    async def _return(self, row: Row[Any], how: Return, *, error: str | None, retries: RetryRules) -> Row[Any]:
        lost = row.lost_attempts + (how == "lost")
        broken = row.broken_attempts + (how == "broken")
        values: dict[str, Any] = {
            "owner": None,
            "lease_token": None,
            "lease_expires_at": None,
            "lost_attempts": lost,
            "broken_attempts": broken,
            # The fence rises here too: from now on the old holder's writes touch nothing.
            "fence": row.fence + 1,
        }
        if row.cancel_requested_at is not None:
            values |= await self._cancelled(row)
        elif lost > retries.lost or broken > retries.broken:
            text = f"Given up after {lost + broken} attempts that ended without your fault, the last one so: "
            values |= {"status": "failed", "error_code": how, "result": await self._failure(row, text + (error or how))}
        else:
            delay = retries.delay_seconds(broken) if how == "broken" else 0
            values |= {"status": "pending", "result": None, "not_before": now() + round(1000 * delay)}
            values["waiting"] = error or WAITING_FOR_WORKER
        returned = await write_job(self._connection, self._counts, row, values)
        await self._attempts.end(row, how, error)
        data = _status(returned.status, how, error)
        await append_events(self._connection, row.id, [("status", data)])
        return returned

    async def _cancelled(self, row: Row[Any]) -> dict[str, Any]:
        """What a job becomes that ends because that was asked for."""
        result = {**await self._failure(row, "Cancelled"), "cancelled": True}
        return {"status": "failed", "cancelled": True, "error_code": "cancelled", "result": result}

    async def _failure(self, row: Row[Any], error: str) -> dict[str, Any]:
        """The result of a job whose attempt cannot say what it leaves."""
        published = select(artifacts.c.name).where(artifacts.c.job_id == row.id, artifacts.c.kind == "lora")
        names = (await self._connection.execute(published.order_by(artifacts.c.step, artifacts.c.name))).scalars()
        progress = (row.result or {}).get("progress", {})
        epoch = progress.get("currentEpoch", 0) if isinstance(progress, Mapping) else 0
        return {"error": error, "epoch": epoch, "partialCheckpoints": list(names)}

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


def _status(status: str, outcome: str, error: str | None) -> dict[str, Any]:
    data = {"status": status, "outcome": outcome}
    return data if error is None else {**data, "error": error}
