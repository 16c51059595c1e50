from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from influencerai.batch.remote import BatchServer
from influencerai.batch.state import BatchState
from influencerai.client import InfluencerAIClient
from influencerai.domain.job import Job
from influencerai.errors import TooManyError
from influencerai.service.keys import KeyService
from influencerai.settings import Settings
from influencerai.store import Store
from tests.cli.batches import BatchPlace, interrupt, place_beside_a_server, settings_there, write_pictures
from tests.cli.conftest import json_lines
from tests.databases import Databases
from tests.serve.running import ANN
from tests.serve.sockets import Served, served
from tests.servers import serve

NAMES = ["ava-four", "ava-eight", "leo-four", "leo-eight"]
End = Callable[[str], tuple[str, dict[str, Any]]]


@pytest.fixture
def settings(tmp_path: Path, databases: Databases) -> Iterator[Settings]:
    """Of the server, whose root has the pictures of one of the two datasets."""
    with settings_there(tmp_path, databases) as made:
        write_pictures(made.root / "data" / "datasets" / "ava")
        yield made


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchPlace:
    return place_beside_a_server(tmp_path, monkeypatch)


def completed(name: str) -> tuple[str, dict[str, Any]]:
    path = f"data/loras/{name}/{name}-final.safetensors"
    return "completed", {"loraPath": path, "finalLoss": 0.25, "trainingTimeMinutes": 1.5}


class Worker(threading.Thread):
    """Ends each of the tenant's jobs a moment after it came, as `end` says; remembers how many were active at once."""

    def __init__(self, url: str, end: End = completed) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.seen: list[Job] = []
        self._client = InfluencerAIClient(url, tenant_id=ANN, on_warning=lambda text: None)
        self._end = end
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            if not self._active():
                continue
            time.sleep(0.3)
            active = self._active()
            self.most = max(self.most, len(active))
            for job in active[-1:]:
                config = self._client.lora_configs.get(job.payload["loraConfigId"])
                progress = {"currentEpoch": 1, "totalEpochs": 2, "step": 1, "totalSteps": 4, "loss": 0.5}
                self._client.jobs.update(job.id, status="running", result={"progress": progress})
                status, result = self._end(config.name)
                self._client.jobs.update(job.id, status=status, result=result)  # type: ignore[arg-type]
                self.seen.append(job)

    def _active(self) -> list[Job]:
        return [*self._client.jobs.list(status="running"), *self._client.jobs.list(status="pending")]

    def stop(self) -> None:
        self._ended.set()
        self.join(20)
        self._client.close()


@contextmanager
def working(server: Served, end: End = completed) -> Iterator[Worker]:
    worker = Worker(server.url, end)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def names(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


@pytest.mark.slow
def test_a_few_jobs_are_submitted_at_a_time_and_each_training_once(
    place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    arguments = ("--server", server.url, "--upload", "--at-once", "2")
    with working(server) as worker:
        first = place.trained(*arguments)
        assert names(first) == NAMES
        assert {(row["status"], row["earlier"], row["finalLoss"], row["minutes"]) for row in first} == {
            ("completed", False, 0.25, 1.5)
        }
        assert [row["file"] for row in first] == [completed(name)[1]["loraPath"] for name in NAMES]
        assert worker.most == 2
        again = place.trained(*arguments)
        assert [(row["earlier"], row["jobId"]) for row in again] == [(True, row["jobId"]) for row in first]

        place.write(configs=[{"name": "four", "networkDim": 4, "networkAlpha": 4}, {"name": "eight", "networkDim": 8}])
        changed = place.trained(*arguments)
        assert [row["earlier"] for row in changed] == [False] * 4
    assert len(list(client.jobs.list())) == 8
    assert sorted(config.name for config in client.lora_configs.list()) == sorted(NAMES)
    datasets = {dataset.path: dataset for dataset in client.datasets.list()}
    assert datasets.keys() == {"data/datasets/ava", "data/datasets/leo"}
    assert sum(1 for _ in client.datasets.images(datasets["data/datasets/leo"].id)) == 3


def test_a_changed_picture_changes_its_dataset_alone(place: BatchPlace, server: Served) -> None:
    arguments = ("--server", server.url, "--upload")
    with working(server):
        place.trained(*arguments)
        (place.root / "data" / "datasets" / "leo" / "leo_01.txt").write_text("another caption")
        rows = place.trained(*arguments)
    assert [row["earlier"] for row in rows] == [True, True, False, False]


def test_what_failed_is_tried_again_from_its_checkpoint_when_asked(
    place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    place.write(datasets=["data/datasets/ava"])
    arguments = ("--server", server.url, "--json")

    def end(name: str) -> tuple[str, dict[str, Any]]:
        return ("failed", {"error": "no luck"}) if name == "ava-eight" else completed(name)

    with working(server, end):
        found = place.batch(*arguments)
        assert found.exit_code == 1
        rows = json_lines(found.stdout)[-1]["result"]["trainings"]
        assert [(row["status"], row["error"]) for row in rows] == [("completed", None), ("failed", "no luck")]
        assert place.batch(*arguments).exit_code == 1
        assert len(list(client.jobs.list())) == 2
    with working(server):
        rows = place.trained("--server", server.url, "--retry-failed")
    assert [(row["status"], row["earlier"]) for row in rows] == [("completed", True), ("completed", False)]
    newest, *_ = client.jobs.list()
    assert (newest.id, newest.retry_of is not None) == (rows[1]["jobId"], True)


def test_a_job_that_was_deleted_is_submitted_anew(
    place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    place.write(datasets=["data/datasets/ava"], configs=[{"name": "four"}])
    with working(server):
        [row] = place.trained("--server", server.url)
        client.jobs.delete(row["jobId"])
        [again] = place.trained("--server", server.url)
    assert again["jobId"] != row["jobId"]


def test_all_problems_are_told_and_no_job_is_submitted(
    place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    client.lora_configs.create(name="ava-taken", model_name="sd15", network_dim=64)
    place.write(configs=[{"name": "fine"}, {"name": "taken"}, {"name": "modelless", "modelName": "no/such-model"}])
    found = place.batch("--server", server.url)
    assert found.exit_code == 2
    for shown in (
        "data/datasets/leo: There is no folder data/datasets/leo.",
        "With --upload the folder",
        "The server has another config called 'ava-taken'",
        "There is no base model 'no/such-model'",
    ):
        assert shown in " ".join(found.stderr.split())
    assert "ava-fine" not in found.stderr
    assert list(client.jobs.list()) == []
    kept = next(config for config in client.lora_configs.list() if config.name == "ava-taken")
    assert kept.network_dim == 64


def test_pictures_from_outside_of_the_root_have_to_be_uploaded(
    place: BatchPlace, server: Served, client: InfluencerAIClient, tmp_path: Path
) -> None:
    far = tmp_path / "far away" / "Leo"
    far.parent.mkdir()
    (place.root / "data" / "datasets" / "leo").rename(far)
    place.write(datasets=[str(far)], configs=[{"name": "four"}])
    found = place.batch("--server", server.url, "--dry-run")
    assert "Path must be relative to the root. With --upload" in " ".join(found.stderr.split())
    assert place.batch("--server", server.url, "--dry-run", "--upload").exit_code == 0
    [dataset] = client.datasets.list()
    assert dataset.path.startswith("data/datasets/leo-")


def test_a_dry_run_submits_nothing(place: BatchPlace, server: Served, client: InfluencerAIClient) -> None:
    found = place.batch("--server", server.url, "--upload", "--dry-run", "--json")
    assert found.exit_code == 0, found.output
    result = json_lines(found.stdout)[-1]
    assert (result["totals"]["open"], names(result["trainings"])) == (4, NAMES)
    assert result["totals"]["steps"] == sum(item["steps"] for item in result["trainings"]) > 0
    assert list(client.jobs.list()) == []


def test_ctrl_c_leaves_the_jobs_and_the_same_command_follows_them(
    place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    place.write(datasets=["data/datasets/ava"])
    arguments = ("--server", server.url, "--at-once", "1", "--json")
    with place.started(*arguments) as process:
        wait_for_job(process)
        code, last = interrupt(process)
    assert (code, last["code"]) == (130, "stopped")
    assert last["message"].startswith("Interrupted. Submitted jobs keep running (1)")
    assert shlex.split(last["resumeCommand"])[3:] == ["batch", str(place.file), *arguments]
    [job] = client.jobs.list()
    assert job.status == "pending"
    with working(server):
        rows = place.trained(*arguments[:-1])
    assert rows[0]["jobId"] == job.id
    assert len(list(client.jobs.list())) == 2


def wait_for_job(process: subprocess.Popen[str]) -> str:
    """The first job that a command with --json follows."""
    assert process.stdout is not None
    for line in process.stdout:
        [row] = json_lines(line)
        if row["type"] == "training" and row["jobId"]:
            return str(row["jobId"])
    pytest.fail(f"no job: {process.communicate()[1]}")


def test_sigterm_ends_as_ctrl_c_does_and_leaves_a_report(place: BatchPlace, server: Served) -> None:
    place.write(datasets=["data/datasets/ava"])
    with place.started("--server", server.url, "--at-once", "1", "--report", "report.json", "--json") as process:
        job_id = wait_for_job(process)
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    last = json_lines(printed)[-1]
    assert (last["code"], last["message"].startswith("Interrupted. Submitted jobs keep running (1)")) == (
        "stopped",
        True,
    )
    report = json.loads((place.root / "report.json").read_text())["trainings"]
    assert [(row["status"], row["jobId"]) for row in report] == [("waiting", job_id), ("waiting", None)]


@pytest.mark.slow
def test_another_key_of_the_tenant_follows_the_same_jobs_and_none_is_shown(
    place: BatchPlace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFLUENCERAI_TENANT")
    place.write(datasets=["data/datasets/leo"], configs=[{"name": "four"}])
    with served(settings.model_copy(update={"auth": "production", "rate_limits": False})) as server:
        keys = [asyncio.run(new_key(settings, tenant)) for tenant in (ANN, ANN, "bob")]
        spellings = (("--api-key", keys[0]), (f"--api-key={keys[1]}",), ("--api-key", keys[2]))
        urls = (server.url, f"{server.url.upper()}/", server.url)
        found = []
        for key, url in zip(spellings, urls, strict=True):
            with place.started("--server", url, "--upload", *key, "--json") as process:
                found.append(wait_for_job(process))
                _, last = interrupt(process)
            assert shlex.split(last["resumeCommand"])[5:] == ["--server", url, "--upload", "--json"]
            assert "set INFLUENCERAI_API_KEY" in last["message"]
        with InfluencerAIClient(server.url, api_key=keys[0]) as client:
            assert [job.id for job in client.jobs.list()] == [found[0]]
    assert found[1] == found[0] != found[2]


async def new_key(settings: Settings, tenant: str) -> str:
    store = Store(settings.database_url)
    try:
        return (await KeyService(store).create(tenant=tenant, name="laptop"))[1]
    finally:
        await store.database.close()


def test_a_submission_that_is_refused_ends_no_other(place: BatchPlace, server: Served) -> None:
    def end(name: str) -> tuple[str, dict[str, Any]]:
        if name == "ava-four":
            with InfluencerAIClient(server.url, tenant_id=ANN) as other:
                ids = {config.name: config.id for config in other.lora_configs.list()}
                other.lora_configs.update(ids["ava-eight"], network_dim=64)
                other.lora_configs.delete(ids["leo-four"])
        return completed(name)

    with working(server, end):
        found = place.batch("--server", server.url, "--upload", "--at-once", "1", "--json")
    assert found.exit_code == 1
    rows = json_lines(found.stdout)[-1]["result"]["trainings"]
    assert [row["status"] for row in rows] == ["completed", "failed", "failed", "completed"]
    assert "was changed on the server after it was checked" in rows[1]["error"]
    assert "not found" in rows[2]["error"]


@pytest.mark.slow
def test_a_changed_training_takes_the_place_of_its_job(
    place: BatchPlace, server: Served, client: InfluencerAIClient
) -> None:
    found: list[str] = []
    for alpha in (2, 4, 2):
        config = {"name": "four", "networkDim": 4, "networkAlpha": alpha}
        place.write(datasets=["data/datasets/ava"], configs=[config])
        if found:
            warned = place.batch("--server", server.url, "--dry-run").stderr
            assert f"Its job {found[-1]}" in " ".join(warned.split())
            assert client.jobs.get(found[-1]).status == "pending"
        with place.started("--server", server.url, "--json") as process:
            found.append(wait_for_job(process))
            interrupt(process)
    assert len(set(found)) == 3
    jobs = {job.id: job for job in client.jobs.list()}
    assert [(jobs[id].status, bool((jobs[id].result or {}).get("cancelled"))) for id in found] == [
        ("failed", True),
        ("failed", True),
        ("pending", False),
    ]


def test_a_report_that_cannot_be_written_hides_no_failure(place: BatchPlace, server: Served) -> None:
    place.write(datasets=["data/datasets/ava"], configs=[{"name": "four"}])

    def end(name: str) -> tuple[str, dict[str, Any]]:
        (place.root / "out").rmdir()
        (place.root / "out").write_text("a file where the folder was")
        return "failed", {"error": "no luck"}

    with working(server, end):
        found = place.batch("--server", server.url, "--report", "out/report.csv")
    assert found.exit_code == 1
    assert "no luck" in found.stdout
    assert "Of 1 trainings 1 failed: ava-four." in found.stderr
    assert "out/report.csv cannot be written" in " ".join(found.stderr.split())


def test_after_a_failure_no_more_are_submitted(place: BatchPlace, server: Served, client: InfluencerAIClient) -> None:
    with working(server, lambda name: ("failed", {"error": name})):
        found = place.batch("--server", server.url, "--upload", "--at-once", "1", "--fail-fast", "--json")
    rows = json_lines(found.stdout)[-1]["result"]["trainings"]
    assert [row["status"] for row in rows] == ["failed", "waiting", "waiting", "waiting"]
    assert len(list(client.jobs.list())) == 1


def test_a_server_that_is_not_there_is_said(place: BatchPlace) -> None:
    found = place.batch("--server", "http://127.0.0.1:9")
    assert found.exit_code == 1
    assert "cannot be reached" in found.stderr


def test_a_server_that_asks_to_wait_is_asked_again(tmp_path: Path) -> None:
    said: list[str] = []
    refusals = [TooManyError("Busy", retry_after=0)] * 2
    state = BatchState(tmp_path, tmp_path / "batch.yaml")
    server = BatchServer(
        "http://127.0.0.1:9", tenant=ANN, api_key=None, state=state, root=tmp_path, upload=False, say=said.append
    )

    async def ask() -> str:
        if refusals:
            raise refusals.pop()
        return "done"

    assert asyncio.run(server.patiently(ask)) == "done"
    assert said == ["The server asks to wait 0 seconds: Busy."] * 2


@pytest.mark.campaign
def test_a_tenant_that_may_have_one_job_gets_one_after_the_other(
    place: BatchPlace, settings: Settings, databases: Databases
) -> None:
    strict = settings.model_copy(
        update={"rate_limits": True, "active_jobs_per_tenant": 1, "reads_per_minute": 10**5, "writes_per_minute": 10**4}
    )
    place.write(datasets=["data/datasets/ava"])
    with served(strict) as server, working(server) as worker:
        rows = place.trained("--server", server.url, "--at-once", "2")
    assert [row["status"] for row in rows] == ["completed"] * 2
    assert worker.most == 1


@pytest.mark.campaign
def test_a_real_server_trains_a_batch(place: BatchPlace, tmp_path: Path) -> None:
    place.write(datasets=["data/datasets/ava", "data/datasets/leo"], configs=[{"name": "four", "networkDim": 4}])
    with serve(tmp_path / "served", runner="inline") as server:
        found = place.batch("--server", server.url, "--upload", "--report", "report.json")
        assert found.exit_code == 0, found.output
        rows = json.loads((place.root / "report.json").read_text())["trainings"]
        assert [(row["name"], row["status"]) for row in rows] == [("ava-four", "completed"), ("leo-four", "completed")]
        assert all((server.root / row["file"]).is_file() and row["finalLoss"] > 0 for row in rows)
