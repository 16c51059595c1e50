"""The checker of histories: it is content with a good one, and sees every way in which one can be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from influencerai.domain.job import Job
from influencerai.store.events import StoredEvent
from influencerai.store.jobs import StoredArtifact
from tests.histories import History, faults, temporary_files

START = datetime(2026, 1, 1, tzinfo=UTC)
FILE = "data/loras/me/me-final.safetensors"
CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Change = Callable[[History], History]


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def milliseconds(second: int) -> int:
    return round(at(second).timestamp() * 1000)


def event(seq: int, type: str, **data: Any) -> StoredEvent:
    return StoredEvent(seq=seq, type=type, data=data, created_at=at(seq))


def attempt(fence: int, node: str, start: int, end: int, outcome: str, error: str | None = None) -> dict[str, Any]:
    times = {"started_at": milliseconds(start), "ended_at": milliseconds(end)}
    return {"fence": fence, "node": node, **times, "outcome": outcome, "error": error}


@pytest.fixture
def good(tmp_path: Path) -> History:
    """A job whose first worker was lost, and whose second completed it."""
    file = tmp_path / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    fields: dict[str, Any] = {
        "name": file.name,
        "kind": "lora",
        "path": FILE,
        "step": 4,
        "epoch": 1,
        "created_at": milliseconds(8),
    }
    return History(
        job=Job(
            id="job",
            tenant_id="ann",
            type="lora-training",
            status="completed",
            payload={},
            result={"loraPath": FILE, "checkpoints": [file.name]},
            created_at=at(0),
            updated_at=at(9),
            started_at=at(2),
            finished_at=at(9),
        ),
        last_seq=9,
        events=(
            event(1, "status", status="pending"),
            event(2, "status", status="running", attempt=1, node="a"),
            event(3, "stage", stage="checking"),
            event(4, "status", status="pending", outcome="lost", error="The worker was lost."),
            event(5, "status", status="running", attempt=3, node="b"),
            event(6, "progress", step=4),
            event(7, "warning", message="odd"),
            event(8, "checkpoint", path=FILE, sha256=SHA256),
            event(9, "status", status="completed", outcome="completed"),
        ),
        attempts=(attempt(1, "a", 2, 4, "lost", "The worker was lost."), attempt(3, "b", 5, 9, "completed")),
        artifacts=(StoredArtifact(**fields, size=len(CONTENT), sha256=SHA256),),
    )


def test_a_good_history_has_no_fault(good: History, tmp_path: Path) -> None:
    assert faults(good, root=tmp_path) == []


def with_event(number: int, **changes: Any) -> Change:
    """The event of this number with other fields, or other data."""

    def change(history: History) -> History:
        old = history.events[number - 1]
        fields = {name: changes.pop(name) for name in ("seq", "type", "created_at") if name in changes}
        new = replace(old, **fields, data={**old.data, **changes})
        return replace(history, events=(*history.events[: number - 1], new, *history.events[number:]))

    return change


def with_attempt(index: int, **changes: Any) -> Change:
    return lambda history: replace(
        history,
        attempts=tuple({**row, **changes} if place == index else row for place, row in enumerate(history.attempts)),
    )


def with_job(**changes: Any) -> Change:
    return lambda history: replace(history, job=history.job.model_copy(update=changes))


def with_artifact(**changes: Any) -> Change:
    return lambda history: replace(history, artifacts=(replace(history.artifacts[0], **changes),))


def after_the_end(history: History) -> History:
    late = event(10, "progress", step=5)
    return replace(history, events=(*history.events, late), last_seq=10)


def ended_twice(history: History) -> History:
    again = event(10, "status", status="completed", outcome="completed")
    return replace(history, events=(*history.events, again), last_seq=10)


BROKEN: dict[str, tuple[Change, str]] = {
    "a gap": (with_event(6, seq=7), "events are numbered"),
    "a last number that is not the last": (lambda history: replace(history, last_seq=12), "events are numbered"),
    "no first pending": (with_event(1, status="running", attempt=0, node="a"), "the first status"),
    "running twice": (with_event(4, status="running", attempt=2), "running cannot become running"),
    "failed and then running": (with_event(4, status="failed"), "failed cannot become running"),
    "news after the end": (after_the_end, "events follow the end"),
    "two endings": (ended_twice, "events follow the end"),
    "an end that the job does not know": (with_job(status="running", finished_at=None), "endings of a job"),
    "an end that the events do not know": (with_event(9, status="pending"), "its last event says pending"),
    "news between attempts": (with_event(4, type="progress"), "cannot become running"),
    "news of a pending job": (with_event(2, type="stage"), "of a job that is pending"),
    "one attempt twice": (with_event(5, attempt=1), "begins twice"),
    "an attempt without a row": (
        lambda history: replace(history, attempts=history.attempts[1:]),
        "attempts [3] have begun",
    ),
    "another outcome": (with_attempt(0, outcome="broken"), "the events say lost"),
    "no outcome": (with_attempt(1, outcome=None), "the events say completed"),
    "no end": (with_attempt(0, ended_at=None), "has the end None"),
    "another node": (with_attempt(1, node="c"), "the events say b"),
    "another error": (with_attempt(0, error="Hm."), "the events 'The worker was lost.'"),
    "a lost attempt that completes": (
        lambda history: with_attempt(1, outcome="lost")(with_event(9, outcome="lost")(history)),
        "leaves no job completed",
    ),
    "time that runs backwards": (with_event(6, created_at=at(1)), "of an earlier time"),
    "a start that was written again": (with_job(started_at=at(5)), "not that of the first attempt"),
    "no start": (with_job(started_at=None), "it started at None"),
    "no finish": (with_job(finished_at=None), "finished at None"),
    "two attempts at once": (with_attempt(0, ended_at=milliseconds(6)), "attempts overlap"),
    "an attempt after the finish": (with_attempt(1, ended_at=milliseconds(11)), "attempts overlap"),
    "a file that is not there": (with_artifact(path="data/loras/me/other.safetensors"), "is not there"),
    "another size": (with_artifact(size=1), "not the one that was published"),
    "another content": (with_artifact(sha256="0" * 64), "not the one that was published"),
    "a file that nobody announced": (with_event(8, path="other"), "announced ['other']"),
    "a result without files": (with_job(result={"loraPath": FILE, "checkpoints": []}), "the result names"),
    "a result of other files": (with_job(result={"loraPath": FILE, "checkpoints": ["x"]}), "the result names"),
    "another final file": (with_job(result={"loraPath": "x", "checkpoints": ["me-final.safetensors"]}), "names x"),
    "a path of this machine in the result": (
        with_job(result={"loraPath": FILE, "checkpoints": ["me-final.safetensors"], "warnings": ["see /tmp/root/x"]}),
        "show the path /tmp/root/x",
    ),
    "a path of this machine in an event": (with_event(7, message="see '/tmp/root'"), "show the path /tmp/root"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_history_is_seen(name: str, good: History, tmp_path: Path) -> None:
    change, said = BROKEN[name]
    found = faults(change(good), root=tmp_path)
    assert any(said in fault for fault in found), found


@pytest.mark.parametrize(
    ("result", "is_fine"),
    [
        ({"error": "No.", "epoch": 1, "partialCheckpoints": ["me-final.safetensors"]}, True),
        ({"error": "No.", "epoch": 1, "partialCheckpoints": ["gone.safetensors"]}, False),
        ({"epoch": 1, "partialCheckpoints": []}, False),
        (None, False),
    ],
)
def test_a_failure_says_why_and_what_is_left(
    result: dict[str, Any] | None, is_fine: bool, good: History, tmp_path: Path
) -> None:
    failed = with_event(9, status="failed", outcome="failed", error="No.")(good)
    failed = with_attempt(1, outcome="failed", error="No.")(with_job(status="failed", result=result)(failed))
    assert (faults(failed, root=tmp_path) == []) == is_fine


def test_what_interrupted_writes_leave_is_found(tmp_path: Path) -> None:
    (tmp_path / "run/dataset").mkdir(parents=True)
    left = [tmp_path / "run/.influencerai-0123.tmp", tmp_path / "run/dataset/.4567.tmp"]
    for path in (*left, tmp_path / "run/state-00000001.safetensors"):
        path.write_bytes(b"")
    assert temporary_files(tmp_path / "run") == left
