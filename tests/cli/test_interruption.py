from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from influencerai.cli.resume_command import continuation
from influencerai.domain import StageEvent
from influencerai.domain.event import Stage
from influencerai.errors import StoppedError, TrainingError
from influencerai.interruption import InterruptedRun, InterruptedTraining
from tests.cli.conftest import json_lines


def interruption(*, stage: Stage | None) -> tuple[InterruptedTraining, list[str]]:
    announced: list[str] = []
    found = InterruptedTraining(announce=lambda: announced.append("stopping"))
    if stage:
        found.watch(StageEvent(stage=stage))
    return found, announced


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def run_inside(stopping: InterruptedTraining, *numbers: signal.Signals) -> None:
    """A run that gets signals and then stops as the trainer does, if it was asked to."""
    with stopping:
        assert not stopping.requested
        for number in numbers:
            send(number)
        assert stopping.requested
        raise StoppedError("Stopped at step 3 of 9.")


def test_the_first_signal_while_training_asks_to_stop_at_the_next_step() -> None:
    stopping, announced = interruption(stage="training")
    with pytest.raises(InterruptedRun, match="Stopped at step 3") as caught:
        run_inside(stopping, signal.SIGTERM)
    assert len(announced) == 1
    assert caught.value.signal_number == signal.SIGTERM
    assert caught.value.continued_by == "--resume"


def test_the_second_signal_aborts() -> None:
    stopping, announced = interruption(stage="training")
    with pytest.raises(InterruptedRun, match="last saved state") as caught:
        run_inside(stopping, signal.SIGINT, signal.SIGINT)
    assert len(announced) == 1
    assert caught.value.continued_by == "--resume"


def test_a_signal_at_another_stage_ends_at_once_and_can_be_resumed() -> None:
    stopping, announced = interruption(stage="encoding images")
    with pytest.raises(InterruptedRun, match="while encoding images") as caught:
        run_inside(stopping, signal.SIGINT)
    assert announced == []
    assert caught.value.continued_by == "--resume"


@pytest.mark.parametrize("stage", [None, "checking"])
def test_before_the_run_there_is_nothing_to_resume(stage: Stage | None) -> None:
    stopping, _ = interruption(stage=stage)
    with pytest.raises(InterruptedRun, match="same command again") as caught:
        run_inside(stopping, signal.SIGINT)
    assert caught.value.continued_by is None


def test_other_errors_pass_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stopping, _ = interruption(stage="training")
    with pytest.raises(TrainingError), stopping:
        raise TrainingError("x")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_command_that_goes_on_has_resume_once_and_before_a_double_dash() -> None:
    stop = InterruptedRun("Stopped.", signal_number=2, continued_by="--resume")
    for given, shown in (
        (["train", "my set"], " train 'my set' --resume"),
        (["train", "--resume", "me"], " train --resume me"),
        (["train", "--", "-me"], " train --resume -- -me"),
    ):
        command = continuation(stop, arguments=given)[1]
        assert command is not None
        assert command.endswith(shown)
    assert continuation(InterruptedRun("Stopped.", signal_number=2), arguments=["train"]) == ("Stopped.", None)


TRAIN = ("train", "data/faces", "--model", "small", "--resolution", "128", "--network-dim", "2", "--network-alpha", "1")


@contextmanager
def started(project: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program in a process of its own, which does not outlive the test."""
    command = [sys.executable, "-m", "influencerai", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=project, env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def environment() -> dict[str, str]:
    return {**os.environ, "INFLUENCERAI_DEVICE": "cpu", "INFLUENCERAI_THREADS": "1"}


def wait_for_event(process: subprocess.Popen[str], **wanted: Any) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        (event,) = json_lines(line)
        if wanted.items() <= event.items():
            return
    pytest.fail(f"no event {wanted}: {process.communicate()[1]}")


@pytest.mark.slow
def test_after_ctrl_c_the_printed_command_completes_the_run(project: Path) -> None:
    output = "data/loras/interrupted"
    with started(project, *TRAIN, "--epochs", "10", "--output-path", output, "--json") as process:
        wait_for_event(process, type="step")
        process.send_signal(signal.SIGINT)
        last = json_lines(process.communicate(timeout=120)[0])[-1]
        assert process.returncode == 130
    assert (last["type"], last["code"], last["exitCode"]) == ("error", "stopped", 130)
    assert shlex.split(last["resumeCommand"])[-2:] == ["--json", "--resume"]
    final = project / output / "interrupted-final.safetensors"
    assert not final.exists()

    command = ["bash", "-c", last["resumeCommand"]]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *events, result = json_lines(done.stdout)
    assert min(event["step"] for event in events if event["type"] == "step") > 1
    assert result["loraPath"] == f"{output}/interrupted-final.safetensors"
    assert final.is_file()


@pytest.mark.slow
def test_sigterm_saves_too_and_a_second_signal_aborts(project: Path) -> None:
    output = "data/loras/terminated"
    with started(project, *TRAIN, "--epochs", "200", "--output-path", output) as process:
        assert process.stderr is not None
        assert any(line.startswith("training ") and "loss" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert any(line.startswith("Stopping after this step") for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 143, errors
        assert printed == ""
        assert errors.splitlines()[-2:-1] == ["Continue with:"]
        assert errors.splitlines()[-1].endswith(f"--output-path {output} --resume")
