from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from influencerai.cli.main import main
from influencerai.cli.resume_command import continuation
from influencerai.client import InfluencerAIClient
from influencerai.interruption import InterruptedRun
from influencerai.settings import Settings
from tests.cli.conftest import Invoke, json_lines
from tests.client.filled import publish, submit
from tests.databases import Databases
from tests.serve.running import ANN
from tests.serve.sockets import Served

FILE = "data/loras/portrait/portrait-final.safetensors"


@pytest.fixture
def settings(tmp_path: Path, databases: Databases) -> Iterator[Settings]:
    url = databases.new("sqlite")
    yield Settings(root=tmp_path, database_url=url, poll_seconds=0.05)
    databases.give_back(url)


@pytest.fixture
def jobs(server: Served, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """The command, for the server and the tenant that the environment names."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("influencerai.cli.jobs.SECONDS_BETWEEN_LOOKS", 0.1)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["jobs", *arguments])

    return invoke


def environment(server: Served) -> dict[str, str]:
    return {"INFLUENCERAI_SERVER": server.url, "INFLUENCERAI_TENANT": ANN}


def result(found: Result) -> dict[str, Any]:
    document = json_lines(found.stdout)[-1]
    assert document["type"] == "result", found.output
    return document


def report(client: InfluencerAIClient, id: str, **progress: Any) -> None:
    fields = {"currentEpoch": 3, "totalEpochs": 12, "step": 25, "totalSteps": 100, "loss": 0.125, **progress}
    client.jobs.update(id, status="running", result={"progress": fields})


def test_the_list_shows_each_job_with_progress_and_why_it_waits(jobs: Invoke, client: InfluencerAIClient) -> None:
    assert jobs("list").stderr == "There are no jobs.\n"
    first, second = submit(client, name="First"), submit(client, name="Second", model="sdxl")
    report(client, first.id, estimatedTimeRemaining="40 seconds")
    lines = jobs("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:] if line.startswith("01")] == [second.id, first.id]
    text = " ".join(" ".join(lines).split())
    for shown in ("running", "First (sd15)", "epoch 3/12, 25%", "pending", "Second (sdxl)", "a worker"):
        assert shown in text
    limited = jobs("list", "--limit", "1")
    assert second.id in limited.stdout
    assert first.id not in limited.stdout
    assert "1 of 2" in limited.stderr
    found = result(jobs("list", "--status", "running", "--json"))
    assert ([job["id"] for job in found["jobs"]], found["total"]) == ([first.id], 1)


def test_a_job_is_shown_whole(jobs: Invoke, client: InfluencerAIClient, settings: Settings) -> None:
    job = submit(client)
    publish(settings, {FILE: b"x" * 2048})
    text = jobs("show", job.id).stdout
    for shown in (job.id, "Portrait (sd15)", "epochs 10", "seed 42", "data/datasets/me", "here", "2.0 KiB", FILE):
        assert shown in text
    document = result(jobs("show", job.id, "--json"))
    assert document["job"]["training"]["seed"] == 42
    assert [file["name"] for file in document["artifacts"]] == ["portrait-final.safetensors"]


def test_what_failed_says_why(jobs: Invoke, client: InfluencerAIClient) -> None:
    job = submit(client)
    client.jobs.update(job.id, status="failed", result={"error": "a\x1b[31mb", "partialCheckpoints": ["k"], "epoch": 2})
    shown = jobs("show", job.id).stdout
    assert r"a\x1b[31mb" in shown
    watched = jobs("watch", job.id)
    assert watched.exit_code == 1
    assert r"Error: a\x1b[31mb" in watched.stderr
    assert "These files were kept: k." in watched.stderr
    document = json_lines(jobs("watch", job.id, "--json").stdout)[-1]
    assert (document["type"], document["code"], document["exitCode"]) == ("error", "training", 1)


def test_cancel_and_retry(jobs: Invoke, client: InfluencerAIClient) -> None:
    job = submit(client)
    assert jobs("cancel", job.id).stdout == f"Job {job.id} is cancelled.\n"
    again = jobs("retry", job.id)
    assert again.stderr == "Warning: There is no checkpoint: it starts anew.\n"
    assert client.jobs.get(again.stdout.strip()).retry_of == job.id
    refused = jobs("retry", again.stdout.strip())
    assert refused.exit_code == 1
    assert "only a failed or cancelled job is tried again" in refused.stderr
    assert "cancelled" in jobs("list", "--status", "cancelled").stdout
    assert result(jobs("cancel", again.stdout.strip(), "--json"))["job"]["result"]["cancelled"]


def test_logs_are_lines(jobs: Invoke, client: InfluencerAIClient) -> None:
    job = submit(client)
    report(client, job.id)
    lines = jobs("logs", job.id).stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["status", "status", "progress"]
    assert lines[-1].endswith("epoch 3/12, 25%, loss 0.1250")
    client.jobs.update(job.id, status="completed", result={})
    followed = json_lines(jobs("logs", job.id, "--follow", "--json").stdout)
    assert [event["seq"] for event in followed[:-1]] == list(range(1, len(followed)))
    assert followed[-1] == {"type": "result", "lastSeq": len(followed) - 1}


def test_active_jobs_are_watched_until_none_is_left(jobs: Invoke, client: InfluencerAIClient) -> None:
    assert jobs("watch").stderr == "No job is active.\n"
    first, second = submit(client, name="First"), submit(client, name="Second")

    def train() -> None:
        time.sleep(1)
        report(client, first.id)
        time.sleep(1)
        client.jobs.update(first.id, status="completed", result={})
        client.jobs.update(second.id, status="failed", result={"error": "no"})

    thread = threading.Thread(target=train)
    thread.start()
    watched = jobs("watch")
    thread.join()
    assert watched.exit_code == 1
    assert f"Of 2 jobs 1 failed: {second.id}." in watched.stderr
    said = [line.split()[1] for line in watched.stdout.splitlines() if line.startswith(first.id)]
    assert said == ["pending", "running", "completed"]


@pytest.mark.parametrize("id_given", [True, False])
def test_ctrl_c_leaves_the_job_running_and_says_so(id_given: bool, server: Served, client: InfluencerAIClient) -> None:
    job = submit(client)
    report(client, job.id)
    code, shown = on_terminal(server, "watch", *([job.id] if id_given else []), until="3/12")
    assert code == 130
    assert ("keeps running." if id_given else "The jobs keep running.") in shown
    assert f"-m influencerai jobs watch{' ' + job.id if id_given else ''}" in shown
    assert "Traceback" not in shown
    assert client.jobs.get(job.id).status == "running"


@pytest.mark.parametrize("key", [["--api-key", "iak_secret"], ["--api-key=iak_secret"]])
def test_the_command_that_goes_on_shows_no_key(key: list[str]) -> None:
    stop = InterruptedRun("Interrupted.", signal_number=2, continued_by="repetition")
    message, command = continuation(stop, arguments=["batch", *key, "my file.yaml", "--", "--api-key=x"])
    assert command is not None
    assert command.endswith(" batch 'my file.yaml' -- --api-key=x")
    assert message.startswith("Interrupted. ")
    assert "INFLUENCERAI_API_KEY" in message
    assert continuation(stop, arguments=["jobs", "watch"])[0] == "Interrupted."


def on_terminal(server: Served, *arguments: str, until: str) -> tuple[int, str]:
    """Run the command on a terminal, press Ctrl-C when it shows `until`; exit code and all that it showed."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "influencerai", "jobs", *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, **environment(server), "TERM": "xterm", "COLUMNS": "150"},
        start_new_session=True,
    )
    os.close(child)
    shown, deadline, is_pressed = b"", time.monotonic() + 60, False
    while time.monotonic() < deadline:
        if select.select([parent], [], [], 0.1)[0]:
            try:
                shown += os.read(parent, 65536)
            except OSError:
                break
        if until.encode() in shown and not is_pressed:
            is_pressed = True
            process.send_signal(signal.SIGINT)
    os.close(parent)
    return process.wait(10), shown.decode(errors="replace")


def test_a_server_that_is_not_there_says_how_to_start_one(jobs: Invoke) -> None:
    found = jobs("list", "--server", "http://127.0.0.1:9")
    assert found.exit_code == 1
    assert "cannot be reached" in found.stderr
    assert "influencerai serve" in found.stderr
    document = json_lines(jobs("list", "--server", "http://127.0.0.1:9", "--json").stdout)[-1]
    assert (document["code"], document["exitCode"]) == ("unreachable", 1)


def test_what_the_command_line_lacks_is_said(jobs: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs("list", "--server", "here").exit_code == 2
    assert jobs("show", "..").exit_code == 2
    unknown = jobs("show", "nothing")
    assert unknown.exit_code == 1
    assert unknown.stderr.splitlines()[0] == "Error: Job nothing not found"
    monkeypatch.delenv("INFLUENCERAI_TENANT")
    nobody = jobs("list")
    assert nobody.exit_code == 2
    assert "--tenant" in nobody.stderr
