"""What people see of a training: in a terminal, in a log, and in a notebook's cell."""

from __future__ import annotations

import base64
import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image
from rich.console import Console

from influencerai import LiveView
from influencerai.domain import (
    CheckpointEvent,
    Event,
    SampleEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
    WarningEvent,
)
from influencerai.domain.job_log import JobEvent, JobEventType
from influencerai.errors import DatasetError
from influencerai.progress.curve import LossCurve, RunningMean, plot_loss
from influencerai.progress.progress_update import progress_update
from influencerai.progress.surfaces import Lines, Notebook, Scene, Terminal

CELL = """
from influencerai import LiveView
from influencerai.domain import StepEvent, WarningEvent

with LiveView("ava <b>") as view:
    view(WarningEvent(message="a caption is <empty>"))
    for step in range(1, 13):
        view(StepEvent(
            step=step, total_steps=12, epoch=1, total_epochs=1, loss=1 / step, learning_rate=1e-4,
            images_per_second=2.0, seconds_remaining=12.0 - step,
        ))
"""


def step(number: int, *, loss: float = 0.25) -> StepEvent:
    return StepEvent(
        step=number,
        total_steps=12,
        epoch=1,
        total_epochs=1,
        loss=loss,
        learning_rate=1e-4,
        images_per_second=2.0,
        seconds_remaining=65.0,
    )


def told(type: JobEventType, **data: Any) -> JobEvent:
    return JobEvent(seq=1, type=type, data=data, created_at=datetime.now(UTC))


def test_a_trainer_and_a_server_look_the_same() -> None:
    here: list[Event] = [
        StageEvent(stage="encoding images", done=3, total=20),
        step(3),
        ValidationEvent(step=3, epoch=1, loss=0.5),
        WarningEvent(message="a caption is empty"),
    ]
    there = [
        told("stage", stage="encoding images", done=3, total=20),
        told(
            "progress",
            step=3,
            totalSteps=12,
            currentEpoch=1,
            totalEpochs=1,
            loss=0.25,
            estimatedSecondsRemaining=65.0,
        ),
        told("validation", step=3, epoch=1, loss=0.5),
        told("warning", message="a caption is empty"),
    ]
    assert [progress_update(event) for event in here] == [progress_update(event) for event in there]


def test_what_a_strangers_worker_says_is_shown_as_far_as_it_can_be() -> None:
    update = progress_update(told("progress", currentEpoch=2, totalEpochs=5, loss="low", estimatedSecondsRemaining=[]))
    assert (update.done, update.total, update.loss, update.seconds_left) == (2, 5, None, None)
    assert progress_update(told("progress")).total == 0
    assert progress_update(told("status", status="failed", error="no disk")).remark == "failed: no disk"
    assert progress_update(told("cancel")).remark is None


def test_files_are_called_by_their_names() -> None:
    events = [
        told("validation", step=3, epoch=1, loss=1 / 3),
        told("checkpoint", epoch=1, path="/srv/studio/data/loras/ava/ava-epoch-1.safetensors"),
        told("sample", epoch=1, paths=["/srv/studio/data/loras/ava/a.png", "b.png"]),
    ]
    assert [progress_update(event).remark for event in events] == [
        "Epoch 1: validation loss 0.3333",
        "Epoch 1: wrote ava-epoch-1.safetensors",
        "Epoch 1: drew a.png, b.png",
    ]


def test_a_terminal_has_a_bar_and_no_markup_of_a_strangers() -> None:
    screen = io.StringIO()
    with LiveView("ava", surface=Terminal(Console(file=screen, force_terminal=True, width=120))) as view:
        view(step(3))
        view(told("warning", message="[red]a caption \x1b]0;title\x07is empty"))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"ava: training.*3/12.*loss 0.2500 +1:05 left +epoch 1/1", text)
    assert "[red]a caption \\x1b]0;title\\x07is empty" in text


def test_a_log_has_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with LiveView("ava", surface=Lines(clock=lambda: now)) as view:
        for number in range(1, 13):
            view(step(number))
            now += 4
        view(told("warning", message="slow\x07"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2].strip(",") for line in lines[:-1]] == ["1/12", "4/12", "7/12", "10/12", "12/12"]
    assert lines[0] == "ava: training 1/12, loss 0.2500, 1:05 left, epoch 1/1"
    assert lines[-1] == "Warning: slow\\x07"


@pytest.mark.slow
def test_a_notebook_has_a_plot_that_a_saved_one_keeps() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    [output] = notebook.cells[0].outputs
    shown = output["data"]["text/html"]
    assert "ava &lt;b&gt;: training 12/12" in shown
    assert "Warning: a caption is &lt;empty&gt;" in shown
    [picture] = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        assert image.width > 500


def test_a_curve_goes_back_with_a_training_that_goes_on_from_its_checkpoint() -> None:
    curve = LossCurve()
    for number in (1, 2, 3, 4, 3, 4, 5):
        curve.add(number, number / 10)
    assert [number for number, _ in curve.steps] == [1, 2, 3, 4, 5]


def test_the_plot_shows_the_loss_its_mean_and_the_validations() -> None:
    steps = [(number, 1 / number) for number in range(1, 41)]
    axes = plot_loss(steps, [(20, 0.5), (40, 0.4)], title="ava").axes[0]
    assert [line.get_label() for line in axes.lines] == ["loss", "mean of 2 steps", "validation", "lowest validation"]
    assert axes.get_title() == "ava"


def test_a_title_is_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    axes = plot_loss([(1, 0.5), (2, 0.25)], [], title=r"5$ or \frac{$", path=path).axes[0]
    assert axes.get_title() == r"5$ or \frac{$"
    with Image.open(path) as image:
        assert image.width > 500


class Broken(Lines):
    """Draws nothing, and remarks everything."""

    def open(self, scene: Scene) -> None:
        raise RuntimeError("no display\x07")

    def show(self, scene: Scene) -> None:
        raise ValueError("no picture")

    def close(self, scene: Scene) -> None:
        raise OSError("gone")


def test_what_cannot_be_drawn_ends_no_training_and_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveView("ava", surface=Broken()) as view:
        view(step(1))
        view(told("warning", message="slow"))
    assert capsys.readouterr().err.splitlines() == [
        "The view cannot be drawn, and the training continues: RuntimeError: no display\\x07",
        "Warning: slow",
    ]


def test_a_running_mean_starts_at_the_first_value_and_follows() -> None:
    mean = RunningMean()
    assert mean.add(2.0) == pytest.approx(2.0)
    for _ in range(200):
        last = mean.add(1.0)
    assert last == pytest.approx(1.0, abs=1e-3)


def test_the_last_line_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveView("ava", surface=Lines()) as view:
        view(StageEvent(stage="exporting"))
        view(CheckpointEvent(step=12, epoch=1, path="/x/ava-final.safetensors", sha256="0"))
    assert capsys.readouterr().err.splitlines()[-1] == "ava: completed in 0.0 minutes: ava-final.safetensors"
    with pytest.raises(DatasetError), LiveView("ava", surface=Lines()) as view:
        raise DatasetError("It holds no images.")
    assert capsys.readouterr().err.splitlines()[-1] == "ava: ended with an error: It holds no images."
    with LiveView("job", surface=Lines()) as view:
        view(step(3))
    assert "completed" not in capsys.readouterr().err


def test_a_notebook_shows_the_newest_sample_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "epoch-1.png")
    view = LiveView("ava", surface=(surface := Notebook()))
    view(SampleEvent(step=1, epoch=1, paths=(str(tmp_path / "epoch-1.png"), str(tmp_path / "gone.png"))))
    shown = surface._document(view._scene).data
    assert shown.count("data:image/png;base64,") == 1
    assert 'alt="epoch-1.png"' in shown
