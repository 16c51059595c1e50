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
from influencerai.scheduling.placement import Allocation, Device, Node
from influencerai.store.events import StoredEvent
from influencerai.store.job_rows import StoredArtifact
from tests.histories import History, faults, overcommitted, temporary_files

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
    times = {"started_at": milliseconds(start), "begun_at": milliseconds(start), "ended_at": milliseconds(end)}
    held = Allocation(node=node, cpus=1, memory_gb=2).to_json()
    return {"job_id": "job", "fence": fence, "node": node, "held": held, **times, "outcome": outcome, "error": error}


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
    "an attempt that begins before its claim": (with_attempt(1, begun_at=milliseconds(4)), "outside of its life"),
    "an attempt that begins after its end": (with_attempt(0, begun_at=milliseconds(5)), "outside of its life"),
    "a result of an attempt that has never begun": (with_attempt(1, begun_at=None), "has never begun"),
    "a step that comes again within one attempt": (
        lambda history: with_event(7, type="progress", step=3)(history),
        "goes back from step 4 to 3",
    ),
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


ALONE = (
    "an attempt that begins before its claim",
    "an attempt that begins after its end",
    "a result of an attempt that has never begun",
    "a step that comes again within one attempt",
)


@pytest.mark.parametrize("name", ALONE)
def test_what_a_cluster_adds_breaks_one_rule_at_a_time(name: str, good: History, tmp_path: Path) -> None:
    change, said = BROKEN[name]
    [found] = faults(change(good), root=tmp_path)
    assert said in found


def test_an_attempt_of_a_worker_has_no_beginning_of_its_own(good: History, tmp_path: Path) -> None:
    assert faults(with_attempt(1, held=None, begun_at=None)(good), root=tmp_path) == []


@pytest.mark.parametrize("outcome", ["completed", "lost", "broken", "released"])
def test_a_result_that_no_attempt_may_give_is_seen(outcome: str, good: History, tmp_path: Path) -> None:
    """An attempt's second result, after its first one gave the job back."""
    late = event(5, "status", status="failed", outcome=outcome, error="Given up.")
    result = {"error": "Given up.", "epoch": 0, "partialCheckpoints": []}
    history = replace(good, events=(*good.events[:4], late), last_seq=5, attempts=good.attempts[:1], artifacts=())
    history = with_job(status="failed", result=result, finished_at=at(5))(history)
    [found] = faults(history, root=tmp_path)
    assert f"event 5 is a result ({outcome}) of no attempt" in found
    cancelled = with_event(5, outcome="cancelled")(history)
    assert faults(cancelled, root=tmp_path) == []


BOX = Node(id="b", name="box", cpus=2, memory_gb=4, devices=(Device(name="H100", memory_gb=80),) * 2)


def holding(start: int, end: int | None, *, begun: int | None = None, **held: Any) -> dict[str, Any]:
    """The row of an attempt that held something of `BOX`, by default a core."""
    fields = {"node": "b", "cpus": 1, "memory_gb": 0, **held}
    times = {"started_at": start, "begun_at": start if begun is None else begun, "ended_at": end}
    return {"job_id": f"job {start}", "fence": 1, "held": Allocation(**fields).to_json(), **times}


def test_a_node_that_is_full_is_not_overcommitted() -> None:
    attempts = [
        holding(0, 5, memory_gb=4, devices={0: 1.0}),
        holding(0, 9, devices={1: 1.0}),
        holding(5, None, memory_gb=4, devices={0: 0.5}),
        {**holding(0, 9), "held": None},
    ]
    assert overcommitted(attempts, [BOX]) == []


@pytest.mark.parametrize(
    "held",
    [
        {"cpus": 2},
        {"memory_gb": 3},
        {"devices": {0: 0.5}},
    ],
    ids=["cores", "memory", "part of a GPU"],
)
def test_more_than_a_node_has_is_seen(held: dict[str, Any]) -> None:
    """For a millisecond, between the attempts of two jobs."""
    attempts = [holding(0, 5, memory_gb=2, devices={0: 0.75}), holding(4, 9, **held)]
    [found] = overcommitted(attempts, [BOX])
    assert "at 4 2 attempts hold more of box" in found


def test_gpus_are_those_that_a_node_has_given() -> None:
    """Until then, what is held of them is a number: Ray may give another one than the placement chose."""
    before = holding(0, 6, devices={0: 1.0})
    assert overcommitted([before, holding(4, 9, begun=6, devices={0: 1.0})], [BOX]) == []
    [found] = overcommitted([before, holding(4, 9, begun=5, devices={0: 1.0})], [BOX])
    assert "at 5 2 attempts" in found


def test_a_node_that_nobody_has_seen_is_reported() -> None:
    [found] = overcommitted([holding(0, 5, node="x")], [BOX])
    assert "the node x of attempt 1 at job 0 was never seen" in found


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
