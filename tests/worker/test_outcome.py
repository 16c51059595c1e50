"""Outcomes of attempts: every last message with every request, and each rule of the table once."""

from __future__ import annotations

from itertools import product

import pytest

from influencerai.domain import TrainingFailure, TrainingResult
from influencerai.job_process.messages import Completed, Failed, ProcessMessage, Stopped
from influencerai.worker.outcome import OUTCOME_RULES, Outcome, OutcomeRule, decide_outcome, last_message

_FAILURE = TrainingFailure(error="No.", epoch=1)
_RESULT = TrainingResult(lora_path="a", checkpoints=("a",), final_loss=0.1, training_time_minutes=1)
MESSAGES: dict[str, ProcessMessage | None] = {
    "completed": Completed(result=_RESULT),
    "stopped": Stopped(failure=_FAILURE),
    "failed, retryable": Failed(code="x", message="No.", retryable=True, failure=_FAILURE),
    "failed": Failed(code="x", message="No.", retryable=False, failure=_FAILURE),
    "none": None,
}
REQUESTS = {"cancel": {"cancel_requested": True}, "stop": {"stop_requested": True}, "": {}}
EXPECTED: dict[str, tuple[Outcome, Outcome, Outcome]] = {
    # last message: cancel, stop and nothing requested
    "completed": ("completed", "completed", "completed"),
    "stopped": ("cancelled", "released", "released"),
    "failed, retryable": ("cancelled", "broken", "broken"),
    "failed": ("cancelled", "failed", "failed"),
    "none": ("cancelled", "released", "broken"),
}


def decided(last: str, requested: str) -> Outcome:
    return decide_outcome(MESSAGES[last], **{"cancel_requested": False, "stop_requested": False, **REQUESTS[requested]})


@pytest.mark.parametrize("last", EXPECTED)
def test_the_last_message_and_the_requests_decide(last: str) -> None:
    assert last_message(MESSAGES[last]) == last
    assert tuple(decided(last, requested) for requested in REQUESTS) == EXPECTED[last]


@pytest.mark.parametrize("rule", OUTCOME_RULES, ids=lambda rule: f"{rule.last_message}-{rule.requested}")
def test_each_rule_decides_some_attempt(rule: OutcomeRule) -> None:
    def decides(last: str, requested: str) -> OutcomeRule:
        return next(
            found
            for found in OUTCOME_RULES
            if found.last_message in (None, last) and found.requested in (None, requested or None)
        )

    cases = [(last, requested) for last, requested in product(MESSAGES, REQUESTS) if decides(last, requested) is rule]
    assert cases
    assert {decided(last, requested) for last, requested in cases} == {rule.outcome}


def test_a_cancel_comes_before_a_stop() -> None:
    assert decide_outcome(None, cancel_requested=True, stop_requested=True) == "cancelled"
