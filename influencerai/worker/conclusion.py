"""Conclusion: writes how an attempt has ended, and what its job becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from influencerai.domain import TrainingFailure
from influencerai.domain.problem import CANCELLATION, Problem
from influencerai.job_process.messages import Completed, Failed, ProcessMessage, Stopped
from influencerai.store import Transaction
from influencerai.store.queue import Lease
from influencerai.store.requeue import RetryRules
from influencerai.worker.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """How an attempt has ended.

    Args:
        outcome: by the table in `outcome`.
        message: the last one of the job process, None where it has sent none.
        epoch: the last one that the process has reported.
        reason: why the process has ended without a last message.
        shown: makes a text fit for the job's tenant.
    """

    outcome: Outcome
    message: ProcessMessage | None
    epoch: int
    reason: str
    shown: Callable[[str], str]

    async def write(self, transaction: Transaction, lease: Lease, *, root: Path, retries: RetryRules) -> str:
        """End the job or requeue it; returns a line for the log.

        Raises:
            FencedOffError: the lease belongs to another attempt.
        """
        published = await _published(transaction, lease, root)
        problem: Problem | None = None
        match self.outcome:
            case "released" | "broken":
                problem = self._problem() if self.outcome == "broken" else None
                await transaction.queue.requeue(lease, self.outcome, problem=problem, retries=retries)
                return f"The job goes back to the queue: {problem.message if problem else self.outcome}"
            case "completed":
                assert isinstance(self.message, Completed)
                warnings = tuple(map(self.shown, self.message.result.warnings))
                result = self.message.result.model_copy(update={"warnings": warnings}).to_wire()
            case "cancelled" | "failed":
                problem = CANCELLATION if self.outcome == "cancelled" else self._problem()
                result = self._failure(problem, published).to_wire()
        await transaction.queue.finish(lease, ending=self.outcome, result=result, problem=problem)
        return f"The job has ended: {self.outcome}."

    def _problem(self) -> Problem:
        if isinstance(self.message, Failed):
            failure = self.message.failure
            remedy = None if failure.remedy is None else self.shown(failure.remedy)
            return Problem(self.shown(failure.error), failure.code, remedy)
        return Problem(self.shown(self.reason), "killed", "See the log of the worker, and the memory of its node.")

    def _failure(self, problem: Problem, published: Sequence[str]) -> TrainingFailure:
        """The contract's result of a failed job."""
        reported = self.message.failure if isinstance(self.message, Stopped | Failed) else None
        epoch = self.epoch if reported is None else reported.epoch
        if self.outcome == "cancelled":
            return TrainingFailure.of(problem, epoch=epoch, partial_checkpoints=published, cancelled=True)
        kept = () if reported is None else reported.partial_checkpoints
        return TrainingFailure.of(problem, epoch=epoch, partial_checkpoints=kept)


async def _published(transaction: Transaction, lease: Lease, root: Path) -> list[str]:
    """Names of the LoRA files of all attempts; withdraws those that are gone: a run may keep only its last epochs."""
    files = await transaction.jobs.artifacts(lease.tenant_id, lease.job_id)
    gone = [file.name for file in files if not (root / file.path).exists()]
    await transaction.queue.withdraw(lease, gone)
    return [file.name for file in files if file.kind == "lora" and file.name not in gone]
