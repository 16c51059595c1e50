"""Requeue: a job whose attempt has not ended it goes back to the queue, or fails when its retries are spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.problem import CANCELLATION, Problem
from influencerai.domain.training_result import TrainingFailure
from influencerai.settings import Settings
from influencerai.store.attempts import Attempts
from influencerai.store.counts import Counts
from influencerai.store.dialect import now
from influencerai.store.events import append_events
from influencerai.store.job_rows import write_job
from influencerai.store.pending_jobs import WAITING_FOR_WORKER
from influencerai.store.schema import artifacts

RequeueReason = Literal["lost", "broken", "released"]
"""Why a job is requeued: its worker vanished, the machine failed it, or the attempt was stopped."""
GIVEN_UP = "See the logs of the nodes that its attempts name, then retry the job: it goes on from its last state."
_LONGEST_DELAY_SECONDS = 300.0


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
        """As the settings say."""
        return cls(lost=settings.lost_attempts, broken=settings.broken_attempts, seconds=settings.retry_seconds)

    def delay_seconds(self, broken: int) -> float:
        """Before the next attempt, after `broken` that the machine has failed."""
        return min(_LONGEST_DELAY_SECONDS, self.seconds * 2.0 ** (broken - 1))


class Requeue:
    """Requeues jobs."""

    def __init__(self, connection: AsyncConnection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts
        self._attempts = Attempts(connection, counts)

    async def requeue(
        self, row: Row[Any], how: RequeueReason, *, problem: Problem | None, retries: RetryRules
    ) -> Row[Any]:
        """Return a locked job to the queue, or end it where the budget for this is spent or it is to be cancelled."""
        lost = row.lost_attempts + (how == "lost")
        broken = row.broken_attempts + (how == "broken")
        values: dict[str, Any] = {
            "owner": None,
            "lease_token": None,
            "lease_expires_at": None,
            "lost_attempts": lost,
            "broken_attempts": broken,
            "recalled_at": None,
            # The fence rises here too: from now on the old holder's writes touch nothing.
            "fence": row.fence + 1,
        }
        if row.cancel_requested_at is not None:
            values |= await self.cancelled(row)
        elif how != "released" and (lost > retries.lost or broken > retries.broken):
            last = problem.message if problem else how
            text = f"Given up after {lost + broken} attempts that ended without your fault, the last one so: {last}"
            remedy = (problem.remedy if problem and how == "broken" else None) or GIVEN_UP
            failure = await self._failure(row, Problem(text, how, remedy))
            values |= {"status": "failed", "error_code": how, "result": failure}
        else:
            delay = retries.delay_seconds(broken) if how == "broken" else 0
            values |= {"status": "pending", "result": None, "not_before": now() + round(1000 * delay)}
            values["waiting"] = problem.message if problem else WAITING_FOR_WORKER
        returned = await write_job(self._connection, self._counts, row, values)
        await self._attempts.end(row, how, problem)
        data = ended(returned.status, how, problem)
        await append_events(self._connection, row.id, [("status", data)])
        return returned

    async def cancelled(self, row: Row[Any]) -> dict[str, Any]:
        """What a job becomes that ends because that was asked for."""
        result = await self._failure(row, CANCELLATION, cancelled=True)
        return {"status": "failed", "cancelled": True, "error_code": CANCELLATION.code, "result": result}

    async def _failure(self, row: Row[Any], problem: Problem, *, cancelled: bool = False) -> dict[str, Any]:
        """The result of a job whose attempt reported none, with the files that are published."""
        published = select(artifacts.c.name).where(artifacts.c.job_id == row.id, artifacts.c.kind == "lora")
        names = (await self._connection.execute(published.order_by(artifacts.c.step, artifacts.c.name))).scalars()
        progress = (row.result or {}).get("progress", {})
        epoch = progress.get("currentEpoch") if isinstance(progress, Mapping) else None
        known = epoch if isinstance(epoch, int) else 0  # an external worker may write any JSON
        return TrainingFailure.of(problem, epoch=known, partial_checkpoints=names, cancelled=cancelled).to_wire()


def ended(status: str, outcome: str, problem: Problem | None) -> dict[str, Any]:
    """What the event of an attempt's end says."""
    data = {"status": status, "outcome": outcome}
    return data if problem is None else {**data, **problem.to_wire()}
