from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from influencerai.batch.rows import BatchRow
from influencerai.cli.batch_progress import STOPPING, BatchLines, LiveBatch
from influencerai.cli.batch_tables import summary_table
from influencerai.domain import StageEvent, StepEvent, WarningEvent
from influencerai.domain.job_log import JobEvent, JobEventType


def step(number: int, *, loss: float = 0.5) -> StepEvent:
    return StepEvent(
        step=number,
        total_steps=10,
        epoch=1,
        total_epochs=2,
        loss=loss,
        learning_rate=1e-4,
        images_per_second=1,
        seconds_remaining=65,
    )


def job_event(kind: JobEventType, **data: Any) -> JobEvent:
    return JobEvent(seq=1, type=kind, data=data, created_at=datetime.now(UTC))


def row(name: str = "ava", **fields: Any) -> BatchRow:
    return BatchRow(name=name, dataset="data/ava", **fields)


def training(name: str = "ava", *, step_number: int = 3) -> BatchRow:
    found = row(name)
    found.begin()
    found.apply(StageEvent(stage="training"))
    found.apply(step(step_number))
    return found


def test_a_row_follows_a_trainer() -> None:
    found = training()
    assert not found.apply(WarningEvent(message="x"))
    assert (found.status, found.stage, found.step, found.epoch, found.seconds_left) == ("running", "training", 3, 1, 65)
    assert found.loss == pytest.approx(0.5)
    found.apply(step(4, loss=1.5))
    assert found.loss is not None
    assert 0.5 < found.loss < 1.5
    found.complete({"finalLoss": 0.25, "trainingTimeMinutes": 2, "loraPath": "a/b.safetensors"})
    assert (found.final_loss, found.minutes, found.file, found.seconds_left) == (0.25, 2, "a/b.safetensors", None)
    assert found.to_report()["status"] == "completed"


def test_a_row_follows_a_job_whatever_its_worker_says() -> None:
    found = row()
    assert found.apply(job_event("status", status="running"))
    assert found.apply(job_event("stage", stage="loading"))
    assert (found.status, found.stage) == ("running", "loading")
    progress = {"step": 2, "totalSteps": 4, "currentEpoch": 1, "totalEpochs": 2, "loss": 0.5}
    assert found.apply(job_event("progress", **progress, estimatedSecondsRemaining=9))
    assert (found.step, found.total_epochs, found.loss, found.seconds_left) == (2, 2, 0.5, 9)
    assert found.apply(job_event("progress", step="many", loss=None))
    assert (found.step, found.total_steps, found.loss) == (0, 0, 0.5)
    assert not found.apply(job_event("checkpoint", path="x"))
    found.complete({"finalLoss": "low", "loraPath": None})
    assert (found.status, found.final_loss, found.file) == ("completed", None, None)


def test_lines_come_for_each_stage_and_of_steps_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = BatchLines(clock=lambda: now)
    found = row()
    found.begin()
    for seconds, event in (
        (0, StageEvent(stage="loading")),
        (1, StageEvent(stage="training")),
        (2, step(1)),
        (3, step(2)),
        (7, step(3)),
        (8, step(4)),
    ):
        now = float(seconds)
        found.apply(event)
        lines(found)
    found.fail("out of \x1b[31mmemory")
    lines(found)
    assert capsys.readouterr().err.splitlines() == [
        "ava  loading",
        "ava  training",
        "ava  training  epoch 1/2  step 3/10  loss 0.5000  1:05 left",
        r"ava  failed: out of \x1b[31mmemory",
    ]


def test_the_live_table_shows_what_matters_most_where_not_all_fits() -> None:
    ended = [row(f"done-{number}") for number in range(20)]
    for found in ended:
        found.complete({"finalLoss": 0.25}, earlier=True)
    failed = row("stuck")
    failed.fail("no")
    rows = [*ended, training("busy"), failed, row("later")]
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100, height=12, color_system=None)
    with LiveBatch(console, rows) as live:
        live.announce_stop()
    frame = shown.getvalue()
    lines = [line.rstrip() for line in frame.splitlines()]
    assert any(line.split() == ["busy", "training", "1/2", "3/10", "0.5000", "1:05"] for line in lines)
    assert any(line.split() == ["stuck", "failed"] for line in lines)
    assert any(line.split() == ["later", "waiting"] for line in lines)
    assert any(line.split() == ["done-0", "completed", "earlier", "0.2500"] for line in lines)
    assert "done-19" not in frame
    assert "21 of 23 have ended; 17 are not shown" in frame
    assert STOPPING in frame


def test_the_summary_has_file_or_error() -> None:
    good, bad = row("good"), row("bad [red]")
    good.complete({"finalLoss": 0.25, "trainingTimeMinutes": 1.5, "loraPath": "loras/good.safetensors"})
    bad.fail("It needs\nmore [memory]")
    shown = io.StringIO()
    Console(file=shown, width=100).print(summary_table([good, bad]))
    first, *rest = [line.split() for line in shown.getvalue().splitlines()[1:]]
    assert first == ["good", "completed", "0.2500", "1:30", "loras/good.safetensors"]
    assert [word for line in rest for word in line] == ["bad", "[red]", "failed", "It", "needs", "more", "[memory]"]
