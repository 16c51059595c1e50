"""Outcome: how an attempt has ended, by the last message of its job process and the requests to the attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from influencerai.job_process.messages import Completed, Failed, ProcessMessage, Stopped

Outcome = Literal["completed", "failed", "cancelled", "released", "broken"]
LastMessage = Literal["completed", "stopped", "failed, retryable", "failed", "none"]
Request = Literal["cancel", "stop"]
"""To cancel the job, or to stop this attempt: its worker stops, or its node is needed for another."""


@dataclass(frozen=True, kw_only=True)
class OutcomeRule:
    """One row of the table; None matches everything."""

    last_message: LastMessage | None = None
    requested: Request | None = None
    outcome: Outcome
    follows: str
    """What happens to the job, for the documentation."""


OUTCOME_RULES = (
    OutcomeRule(last_message="completed", outcome="completed", follows="`completed`, with verified files"),
    OutcomeRule(
        requested="cancel",
        outcome="cancelled",
        follows="`failed` with `result.cancelled`; `retry` makes a job that continues from the training state",
    ),
    OutcomeRule(last_message="stopped", outcome="released", follows="`pending` again, at no cost"),
    OutcomeRule(
        last_message="failed, retryable",
        outcome="broken",
        follows="`pending` again, at most `broken_attempts` times: the machine is at fault",
    ),
    OutcomeRule(
        last_message="failed",
        outcome="failed",
        follows="`failed` without another attempt: the images, the configuration or the model are at fault",
    ),
    OutcomeRule(requested="stop", outcome="released", follows="`pending` again, at no cost"),
    OutcomeRule(
        outcome="broken", follows="`pending` again, at most `broken_attempts` times: the process was killed or crashed"
    ),
)
"""The first row that matches decides."""


def decide_outcome(message: ProcessMessage | None, *, cancel_requested: bool, stop_requested: bool) -> Outcome:
    """The outcome of an attempt whose process has ended after `message`, its last one."""
    last = last_message(message)
    requests = {"cancel": cancel_requested, "stop": stop_requested}
    for rule in OUTCOME_RULES:
        if rule.last_message in (None, last) and (rule.requested is None or requests[rule.requested]):
            return rule.outcome
    raise AssertionError("The last rule matches everything.")


def last_message(message: ProcessMessage | None) -> LastMessage:
    """The kind of a last message; "none" where the process has ended without reporting how."""
    match message:
        case Completed():
            return "completed"
        case Stopped():
            return "stopped"
        case Failed(retryable=True):
            return "failed, retryable"
        case Failed():
            return "failed"
        case _:
            return "none"
