"""`influencerai demo`: with its server and without, to the end, and ended before by signals and by what is missing."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from safetensors import safe_open

from influencerai.cli.demo import run_local_demo, run_served_demo
from influencerai.cli.demo_output import DemoBars, DemoLines
from influencerai.demo.characters import list_characters, write_character
from influencerai.demo.spec import DEMO_PROMPTS, demo_config
from influencerai.domain.job import JobDetail
from influencerai.domain.job_log import JobEvent
from influencerai.interruption import EndedBySignal, InterruptedRun
from influencerai.packages import SERVE_PACKAGES
from influencerai.service import Service
from influencerai.settings import Settings
from tests.cli.conftest import Invoke, json_lines
from tests.worker.workplace import MARK, marked

ROOT = Path(__file__).parents[2]
BRIEF = """
from influencerai.cli.main import main
from influencerai.demo.run import whole
whole.EPOCHS = 12
main()
"""
"""The program, whose demo trains less."""
on_ray = pytest.mark.xdist_group("ray")


def test_the_prompts_have_the_trigger_and_are_in_no_training_set(tmp_path: Path) -> None:
    for name in list_characters():
        write_character(name, tmp_path / name)
    captions = {path.read_text("utf-8").strip() for path in tmp_path.rglob("*.txt")}
    assert len(captions) > 20
    assert captions.isdisjoint(DEMO_PROMPTS)
    assert all("ohwx" in prompt for prompt in DEMO_PROMPTS)


def test_the_spec_shows_every_picture_a_hundred_times_and_has_no_warnings() -> None:
    config = demo_config()
    assert config.epochs * config.options.repeats == 100
    assert config.options.trigger_word == "ohwx"
    assert config.warnings == []


# Alone


@pytest.mark.parametrize("way", [(), ("--local",)], ids=["served", "local"])
def test_an_unknown_character_is_refused_before_anything_is_written(
    invoke: Invoke, tmp_path: Path, way: tuple[str, ...]
) -> None:
    result = invoke("demo", *way, "--character", "nobody", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_local_is_for_one_character(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("demo", "--local", "--character", "ava", "--character", "leo", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--character once" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_demo_keeps_edited_captions(invoke: Invoke, tmp_path: Path) -> None:
    write_character("ava", tmp_path / "datasets/ava")
    caption = tmp_path / "datasets/ava/ava_01.txt"
    caption.write_text("ohwx, in my own words")
    (tmp_path / ".influencerai").write_text("ends the demo before it trains")
    result = invoke("demo", "--local", "--out", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path / '.influencerai'}" in result.stderr
    assert "bug in InfluencerAI" not in result.stderr
    assert caption.read_text() == "ohwx, in my own words"


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("epochs", [10, 100])
def test_the_local_demo_trains_draws_and_says_where_everything_is(
    epochs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_local_demo("ava", out=out, resume=False, as_json=True, epochs=epochs)
    *events, last = json_lines(capsys.readouterr().out)
    assert last["character"] == "ava"
    assert all(Path(last[name]).is_file() for name in ("loraPath", "grid", "lossPlot"))
    losses = [event["loss"] for event in events if event["type"] == "step"]
    assert len(losses) == 5 * epochs
    if epochs == 100:  # fewer steps show nothing but the noise of single timesteps
        assert sum(losses[-50:]) < sum(losses[:50])
    check_grid(Path(last["grid"]))


# With the server


@pytest.mark.campaign
@on_ray
@pytest.mark.timeout(600)
def test_two_tenants_train_at_the_same_time_and_nothing_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = secrets.token_hex(8)
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of another cluster, which the demo leaves alone
    run_served_demo(["ava", "leo"], out=tmp_path, epochs=8, resume=False, as_json=True)
    assert gone(mark) == []
    lines = json_lines(capsys.readouterr().out)
    made = {item["character"]: item for item in lines[-1]["characters"]}
    assert [(name, item["tenant"]) for name, item in made.items()] == [("ava", "ava-studio"), ("leo", "leo-studio")]
    for name, item in made.items():
        job = stored_job(tmp_path, item)
        assert job.status == "completed"
        assert job.result is not None
        lora = Path(item["loraPath"])
        assert lora.read_bytes() == (tmp_path / "server" / job.result["loraPath"]).read_bytes()
        with safe_open(lora, framework="np") as file:
            assert any(file.get_tensor(key).any() for key in file.keys() if "lora_up" in key)  # noqa: SIM118
        check_grid(tmp_path / name / "before-after.png")
    began = {name: moments(lines, name, "running")[0] for name in made}
    ended = {name: moments(lines, name, "completed")[0] for name in made}
    assert max(began.values()) < min(ended.values())
    assert made["ava"]["jobId"] != made["leo"]["jobId"]
    assert (tmp_path / "server.log").is_file()


@on_ray
@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_ctrl_c_leaves_nothing_running_and_the_command_that_it_names_goes_on(tmp_path: Path) -> None:
    with demo_process(tmp_path) as (process, mark):
        wait_for_steps(process, tmp_path, count=2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 130, errors(tmp_path)
        assert gone(mark) == []
    *events, last = json_lines(output(tmp_path))
    assert (last["code"], last["exitCode"]) == ("stopped", 130)
    assert last["resumeCommand"].endswith("--json --resume")
    assert {event["event"]["data"].get("status") for event in events if event["type"] == "event"} <= {
        *(None, "pending", "running")
    }
    with demo_process(tmp_path, "--resume") as (process, mark):
        assert process.wait(300) == 0, errors(tmp_path)
        assert gone(mark) == []
    for item in json_lines(output(tmp_path))[-1]["characters"]:
        job = stored_job(tmp_path, item)
        assert [attempt.outcome for attempt in job.attempts] == ["released", "completed"]


@on_ray
@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    with demo_process(tmp_path) as (process, mark):
        wait_for_steps(process, tmp_path, count=2)
        assert len(marked(mark)) > 5
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, errors(tmp_path)
        assert gone(mark) == []
        assert time.monotonic() - begun < 40


@on_ray
@pytest.mark.campaign
def test_a_server_that_ends_by_itself_ends_the_demo(tmp_path: Path) -> None:
    with demo_process(tmp_path) as (process, mark):
        wait_for_steps(process, tmp_path, count=1)
        [server] = [pid for pid in marked(mark) if is_server(pid)]
        os.kill(server, signal.SIGKILL)
        assert process.wait(60) == 1, errors(tmp_path)
        assert gone(mark) == []
    last = json_lines(output(tmp_path))[-1]
    assert "exit code is -9" in last["message"]
    assert "server.log" in last["remedy"]


@pytest.mark.slow
def test_why_the_server_does_not_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server/.influencerai").write_text("no folder")
    with demo_process(tmp_path) as (process, mark):
        assert process.wait(60) == 1, errors(tmp_path)
        assert gone(mark) == []
    last = json_lines(output(tmp_path))[-1]
    assert ".influencerai" in last["message"]
    assert "server.log" in last["remedy"]
    assert "bug in InfluencerAI" not in errors(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["ray", "torch", "starlette"])
def test_a_missing_package_is_named_with_what_helps(tmp_path: Path, package: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    path = os.pathsep.join((str(tmp_path), *sys.path))
    with demo_process(tmp_path / "out", PYTHONPATH=path) as (process, mark):
        assert process.wait(60) == 1
        assert gone(mark) == []
    last = json_lines(output(tmp_path / "out"))[-1]
    assert last["code"] == "dependency_missing"
    assert f"'{package}'" in last["message"]
    assert "pip install 'influencerai[train,serve]'" in last["remedy"]
    assert ("--local" in last["remedy"]) is (package != "torch")


def test_every_package_of_the_extra_is_looked_for() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["serve"]
    assert set(SERVE_PACKAGES) == {re.split(r"[^\w.-]", text)[0] for text in extra}


# What is shown


def test_lines_name_the_tenant_and_leave_progress_out_that_comes_too_soon(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = DemoLines(clock=lambda: now)
    for step in range(1, 13):
        lines("ava", progress(step))
        lines("leo", progress(step))
        now += 1
    shown = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in shown] == ["ava-studio", "leo-studio"] * 3
    assert "8%" in shown[0]
    assert "50%" in shown[2]


def test_bars_show_each_job_and_no_markup_of_a_strangers() -> None:
    screen = io.StringIO()
    with DemoBars(Console(file=screen, force_terminal=True, width=120), ["ava", "leo"]) as bars:
        bars("ava", progress(3))
        bars("leo", event("stage", {"stage": "encoding images", "done": 7, "total": 20}))
        bars("leo", event("warning", {"message": "[red]a caption \x1b]0;title\x07is empty"}))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"ava-studio training.*3/12.*loss 0.2500", text)
    assert re.search(r"leo-studio encoding images.*7/20", text)
    assert "[red]a caption \\x1b]0;title\\x07is empty" in text


def test_a_signal_waits_for_what_is_done_whole() -> None:
    done = []

    def work() -> None:
        with EndedBySignal("Interrupted.") as interruption, interruption.held():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("whole")

    with pytest.raises(InterruptedRun) as caught:
        work()
    assert done == ["whole"]
    assert caught.value.signal_number == signal.SIGTERM


def check_grid(path: Path) -> None:
    with Image.open(path) as image:
        assert image.width > 4 * 128
        assert image.height > len(DEMO_PROMPTS) * 128
        before, after = (image.crop((left, 0, left + 2 * 136, image.height)) for left in (8, 8 + 2 * 136))
        assert before.tobytes() != after.tobytes()


@contextmanager
def demo_process(out: Path, *options: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A demo with --json, a session of its own, and the mark of its processes; none outlives the block."""
    out.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = {**own, MARK: mark, **variables}
    command = [sys.executable, "-c", BRIEF, "demo", "--out", str(out), "--json", *options]
    with (out / "output").open("wb") as stdout, (out / "errors").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, start_new_session=True)
    try:
        yield process, mark
    finally:
        process.kill()
        process.wait()
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def output(out: Path) -> str:
    return (out / "output").read_text("utf-8")


def errors(out: Path) -> str:
    """What the demo and its server have said, for the message of a failure."""
    log = out / "server.log"
    said = log.read_text("utf-8", errors="replace")[-4000:] if log.exists() else ""
    return f"{output(out)[-1000:]}\n{(out / 'errors').read_text('utf-8')[-4000:]}\n{said}"


def wait_for_steps(process: subprocess.Popen[bytes], out: Path, *, count: int) -> None:
    """Return when the jobs of so many characters have trained some steps."""
    until(lambda: process.poll() is not None or trained_characters(out) >= count, seconds=120)
    assert process.poll() is None, errors(out)


def trained_characters(out: Path) -> int:
    complete = output(out).rpartition("\n")[0]
    lines = [line for line in json_lines(complete) if line["type"] == "event" and line["event"]["type"] == "progress"]
    return len({line["character"] for line in lines})


def moments(lines: list[dict[str, Any]], character: str, text: str) -> list[datetime]:
    """When a character's job has reached a stage or a status."""
    events = [line["event"] for line in lines if line["type"] == "event" and line["character"] == character]
    return [
        datetime.fromisoformat(found["createdAt"])
        for found in events
        if text in (found["data"].get("stage"), found["data"].get("status"))
    ]


def stored_job(out: Path, item: dict[str, Any]) -> JobDetail:
    """What the server's database says of a job, after the server."""

    async def look() -> JobDetail:
        service = Service(Settings(root=out / "server"))
        await service.open()
        try:
            return await service.jobs.detail(item["tenant"], item["jobId"])
        finally:
            await service.close()

    return asyncio.run(look())


def is_server(pid: int) -> bool:
    return b"\0serve\0--json\0" in Path(f"/proc/{pid}/cmdline").read_bytes()


def gone(mark: str) -> list[str]:
    """Command lines of the processes that are left, a moment after the demo."""
    until(lambda: not marked(mark), seconds=5, check=False)
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in marked(mark)]


def until(condition: Callable[[], object], *, seconds: float, check: bool = True) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not check or condition()


def event(type: str, data: dict[str, Any]) -> JobEvent:
    return JobEvent.model_validate({"seq": 1, "type": type, "data": data, "createdAt": datetime.now(UTC)})


def progress(step: int) -> JobEvent:
    data = {"currentEpoch": 1, "totalEpochs": 1, "step": step, "totalSteps": 12, "loss": 0.25}
    return event("progress", json.loads(json.dumps(data)))
