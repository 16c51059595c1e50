"""Failures: maps exceptions of an attempt to the last message of its job process."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress

from influencerai.domain import TrainingFailure, TrainingSpec
from influencerai.domain.problem import Problem
from influencerai.errors import InfluencerAIError, StoppedError
from influencerai.job_process.messages import Failed, Stopped
from influencerai.job_process.tenant_view import TenantView
from influencerai.train.backend import RunContext
from influencerai.train.causes import is_infrastructure
from influencerai.train.runs.failure import describe_failure

Run = tuple[TrainingSpec, RunContext]


def last_message(error: Exception, *, run: Run | None, view: TenantView) -> Stopped | Failed:
    """The message for an attempt that `error` has ended; `run` as far as it was resolved.

    Errors that the tenant did not cause are retryable, and go to the log with their traceback.
    """
    if isinstance(error, StoppedError):
        return Stopped(failure=_failure(Problem.of(error), error, run=run, view=view))
    retryable = not isinstance(error, InfluencerAIError) or is_infrastructure(error)
    if retryable:
        log_error(error, view=view)
    known = error if isinstance(error, InfluencerAIError) else InfluencerAIError(_last_line(error))
    code = error.code if isinstance(error, InfluencerAIError) else "internal"
    problem = Problem.of(known)
    failure = _failure(Problem(problem.message, code, problem.remedy), known, run=run, view=view)
    return Failed(code=code, message=failure.error, retryable=retryable, failure=failure)


def log_error(error: Exception, *, view: TenantView) -> None:
    """Write the traceback to the log of the attempt, whose disk may be full."""
    with suppress(OSError):
        sys.stderr.write(view.text("".join(traceback.format_exception(error))))


def _failure(problem: Problem, error: InfluencerAIError, *, run: Run | None, view: TenantView) -> TrainingFailure:
    failure = TrainingFailure.of(problem)
    if run is not None:
        try:
            failure = describe_failure(error, *run)
        except (InfluencerAIError, OSError) as second:  # the folder that it reads may be the cause of the failure
            log_error(second, view=view)
    shown = {"error": view.text(failure.error), "remedy": view.text(failure.remedy or "") or None}
    return failure.model_copy(update={**shown, "code": problem.code})


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
