from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from influencerai.cli.progress import JsonLines, choose_listener
from influencerai.domain import CheckpointEvent, StageEvent, StepEvent, ValidationEvent, WarningEvent
from influencerai.domain.event import Stage
from influencerai.progress.text import duration
from influencerai.progress.training_progress import Bars, Figures, Lines, remark


def step(number: int, *, loss: float = 0.5, seconds_remaining: float = 65) -> StepEvent:
    return StepEvent(
        step=number,
        total_steps=10,
        epoch=1,
        total_epochs=2,
        loss=loss,
        learning_rate=1e-4,
        images_per_second=3.25,
        seconds_remaining=seconds_remaining,
    )


def stage(name: Stage, done: int = 0, total: int = 0) -> StageEvent:
    return StageEvent(stage=name, done=done, total=total)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (5.4, "0:05"), (65, "1:05"), (3605, "1:00:05"), (-3, "0:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_figures_of_a_step() -> None:
    text = Figures().of_step(step(1))
    assert text == "loss 0.5000  1:05 left  3.2 images/s  epoch 1/2  lr 1.0e-04"


def test_the_loss_is_a_mean_that_begins_with_the_first_step() -> None:
    figures = Figures()
    figures.of_step(step(1, loss=1.0))
    assert "loss 0.4872" in figures.of_step(step(2, loss=0.0))


def test_the_figures_of_a_stage_count_from_its_first_event() -> None:
    clock = Clock()
    figures = Figures(clock=clock)
    assert figures.of_stage(stage("encoding images", 10, 20)) == ""
    clock.now += 2
    assert figures.of_stage(stage("encoding images", 14, 20)) == "0:03 left  2.0 images/s"
    assert figures.of_stage(stage("encoding captions", 0, 5)) == ""


def test_lines_are_seconds_apart_but_for_new_and_finished_stages(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Lines(clock=clock) as lines:
        for done in range(5):
            lines(stage("encoding images", done, 4))
        lines(stage("training", 0, 10))
        for number in range(1, 10):
            clock.now += 1
            lines(step(number))
        lines(step(10))
    printed = [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()]
    assert printed == ["encoding images 0/4", "encoding images 4/4", "training 0/10", "training 5/10", "training 10/10"]


def test_remarks_are_always_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        lines(WarningEvent(message="few images"))
        lines(ValidationEvent(step=3, epoch=1, loss=0.25))
        lines(CheckpointEvent(step=3, epoch=1, path="/far/me-epoch-1.safetensors", sha256="0"))
    assert capsys.readouterr().err.splitlines() == [
        "Warning: few images",
        "epoch 1: validation loss 0.2500",
        "epoch 1: wrote /far/me-epoch-1.safetensors",
    ]


def test_remarks_cannot_steer_the_terminal() -> None:
    assert remark(WarningEvent(message="\x1b[2J\x9bx.png: odd")) == r"Warning: \x1b[2J\x9bx.png: odd"


def test_bars_show_stage_count_figures_and_remarks() -> None:
    screen = io.StringIO()
    with Bars(Console(file=screen, force_terminal=True, width=160, color_system=None)) as bars:
        bars(stage("encoding images", 3, 4))
        bars(stage("training", 0, 10))
        bars(WarningEvent(message="a [bracket] in it"))
        bars(step(10))
    text = screen.getvalue()
    assert "encoding images" in text
    assert "10/10" in text
    assert "loss 0.5000" in text
    assert "Warning: a [bracket] in it" in text


def test_a_narrow_terminal_has_loss_and_time_left() -> None:
    screen = io.StringIO()
    with Bars(Console(file=screen, force_terminal=True, width=80, color_system=None)) as bars:
        bars(stage("training", 0, 10))
        bars(step(10))
    assert "loss 0.5000  1:05 left" in screen.getvalue()


def test_bars_say_that_the_run_will_stop() -> None:
    screen = io.StringIO()
    with Bars(Console(file=screen, force_terminal=True, width=160, color_system=None)) as bars:
        bars(stage("training", 1, 10))
        bars.announce_stop()
        bars(step(2))
    assert "stopping (Ctrl-C again aborts)" in screen.getvalue()


def test_json_lines_are_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    with choose_listener(as_json=True) as listener:
        assert isinstance(listener, JsonLines)
        listener(step(1))
    assert json.loads(capsys.readouterr().out) == step(1).to_wire()


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with choose_listener(as_json=False) as listener:
        listener(stage("checking"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "checking\n")
