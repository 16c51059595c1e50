"""The workflow for n8n, walked against real servers: a training that ends, one that fails, one that is refused."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from influencerai.demo.characters import write_character
from tests.deploy.workflow import Reply, Walk
from tests.servers import Server, serve
from tests.training_runs import write_dataset

FILE = Path(__file__).parents[2] / "deploy/n8n/lora-train.json"
TENANT = ("x-tenant-id", "tenant_demo")
CALLER = ("x-caller", "its secret")
CONFIG = {
    "name": "Portrait",
    "modelName": "influencerai/tiny-avatars",
    "epochs": 1,
    "batchSize": 10,
    "resolution": 128,
    "networkDim": 4,
    "networkAlpha": 2,
}
COMPLETED = {"status": "completed", "result": {"loraPath": "data/loras/p/p-final.safetensors", "checkpoints": []}}
FAILED = {"status": "failed", "result": {"error": "CUDA out of memory"}}
DONE = ("Webhook", "Key", "Create job", "Created?", "Wait", "Get job", "Ended?")
ROUND = DONE[4:]
KEPT_SECONDS = 65
"""n8n keeps an execution in its memory through shorter waits."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API alone: the tests are its worker."""
    root = tmp_path_factory.mktemp("n8n")
    write_dataset(root / "data/datasets/p", count=2)
    with serve(root) as running:
        yield running


@pytest.fixture(scope="module")
def payload(server: Server) -> dict[str, str]:
    return make_payload(server)


def make_payload(server: Server, path: str = "data/datasets/p", **headers: Any) -> dict[str, str]:
    """What the webhook is called with: ids of a dataset and of a configuration."""
    dataset = server.ask("POST", "/datasets", {"kind": "lora-training", "path": path}, **headers).document
    config = server.ask("POST", "/lora-configs", CONFIG, **headers).document
    return {"datasetId": dataset["id"], "loraConfigId": config["id"]}


def walk(server: Server, pause: Callable[[float], None] = lambda _: None, credential: tuple[str, str] = TENANT) -> Walk:
    return Walk(
        document=json.loads(FILE.read_text()),
        environment={"INFLUENCERAI_SERVER": server.url},
        credentials={"InfluencerAI": credential, "InfluencerAI webhook": CALLER},
        pause=pause,
    )


def jobs(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.ask("GET", "/jobs?take=100").document["data"]
    return found


def reporting(server: Server, *reports: dict[str, Any]) -> Callable[[float], None]:
    """A pause in which the newest job gets the next report of a worker."""
    left = list(reports)

    def pause(_: float) -> None:
        assert server.ask("PATCH", f"/jobs/{jobs(server)[0]['id']}", left.pop(0)).status == 200

    return pause


def call(walk: Walk, body: Any, *, execution: str | None = None) -> Reply:
    """Call the webhook as who may, in an execution of its own unless one is named."""
    return walk.call(body, headers=dict([CALLER]), execution=execution or uuid.uuid4().hex)


def test_every_node_is_reached_and_none_holds_a_secret() -> None:
    document = json.loads(FILE.read_text())
    names = [node["name"] for node in document["nodes"]]
    assert len({*names}) == len(names) == len({node["id"] for node in document["nodes"]})
    linked = {item["node"] for found in document["connections"].values() for output in found["main"] for item in output}
    assert linked == {*names} - {"Webhook"}
    assert {*document["connections"]} == {name for name in names if not name.startswith("Respond")}
    for node in document["nodes"]:
        assert "Authorization" not in json.dumps(node["parameters"])
        assert (node["type"].rpartition(".")[2] in ("webhook", "httpRequest")) == ("credentials" in node)


@pytest.mark.slow
def test_a_job_that_completes_is_waited_for_and_answered(server: Server, payload: dict[str, str]) -> None:
    running = {"status": "running", "result": {"progress": {"currentEpoch": 1, "totalEpochs": 2}}}
    reply = call(walk(server, reporting(server, running, COMPLETED)), payload)
    assert (reply.status, reply.body["status"], reply.body["result"]) == (200, "completed", COMPLETED["result"])
    assert reply.path == (*DONE, *ROUND, "Respond completed")


def test_a_job_that_fails_is_answered_with_its_error(server: Server, payload: dict[str, str]) -> None:
    reply = call(walk(server, reporting(server, FAILED)), payload)
    assert (reply.status, reply.body["result"]["error"]) == (422, "CUDA out of memory")
    assert reply.path == (*DONE, "Respond failed")


@pytest.mark.parametrize(
    ("change", "status", "message", "field"),
    [
        ({"datasetId": 'a "quoted" id'}, 404, 'Dataset a "quoted" id not found', "payload.datasetId"),
        ({"datasetId": None}, 400, "Validation failed", "payload.datasetId"),
        ({"loraConfigId": "absent"}, 404, "LoRA config absent not found", "payload.loraConfigId"),
    ],
)
def test_what_the_server_refuses_is_passed_on(
    server: Server, payload: dict[str, str], change: dict[str, Any], status: int, message: str, field: str
) -> None:
    before = len(jobs(server))
    reply = call(walk(server), {**payload, **change})
    assert (reply.status, reply.body["statusCode"], reply.body["message"]) == (status, status, message)
    assert [*reply.body["errors"]["fieldErrors"]] == [field]
    assert reply.path == (*DONE[:4], "Respond refused")
    assert len(jobs(server)) == before


def test_a_job_that_is_deleted_ends_the_waiting(server: Server, payload: dict[str, str]) -> None:
    def delete(_: float) -> None:
        id = jobs(server)[0]["id"]
        assert server.ask("PATCH", f"/jobs/{id}", FAILED).status == 200
        assert server.ask("DELETE", f"/jobs/{id}").status == 200

    reply = call(walk(server, delete), payload)
    assert (reply.status, reply.path) == (404, (*DONE, "Respond refused"))


def test_a_server_that_is_away_for_a_while_is_waited_for(server: Server, payload: dict[str, str]) -> None:
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        walked.environment["INFLUENCERAI_SERVER"] = away if len(waits) < 4 else server.url
        if len(waits) == 4:
            reporting(server, COMPLETED)(seconds)

    with nobody() as away:
        walked = walk(server, pause)
        reply = call(walked, payload)
    assert waits == [5] * 4
    assert (reply.status, reply.path) == (200, (*DONE, *(("Given up?", *ROUND) * 3), "Respond completed"))


@pytest.mark.parametrize("answer", [None, (500, "{}"), (200, "<html>another server</html>"), (429, "{}")])
def test_a_server_that_stays_away_is_given_up(
    server: Server, payload: dict[str, str], answer: tuple[int, str] | None
) -> None:
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        walked.environment["INFLUENCERAI_SERVER"] = away

    with nobody() if answer is None else answering(*answer) as away:
        walked = walk(server, pause)
        reply = call(walked, payload)
    assert (reply.status, reply.path[-2:]) == (504, ("Given up?", "Respond unanswered"))
    assert reply.body["id"] == jobs(server)[0]["id"]
    assert 1800 <= sum(waits) <= 3600
    assert sum(seconds < KEPT_SECONDS for seconds in waits) * 5 == 60  # within the first minute alone
    assert all(seconds > KEPT_SECONDS for seconds in waits[12:])  # n8n counts from a moment that is already over


@pytest.mark.parametrize(("status", "body"), [(400, '{"statusCode": 400}'), (410, "<html>gone</html>")])
def test_what_no_waiting_changes_ends_it(server: Server, payload: dict[str, str], status: int, body: str) -> None:
    def pause(_: float) -> None:
        walked.environment["INFLUENCERAI_SERVER"] = away

    with answering(status, body) as away:
        walked = walk(server, pause)
        reply = call(walked, payload)
    assert (reply.status, reply.path) == (status, (*DONE, "Respond refused"))
    assert reply.body in ({"statusCode": 400}, {"statusCode": 410, "message": body})


def test_executions_of_one_number_make_a_job_each(server: Server, payload: dict[str, str]) -> None:
    """Two installations of n8n count their executions from 1 both, and have the workflow under one id."""
    replies = [call(walk(server, reporting(server, COMPLETED)), payload, execution="1") for _ in range(2)]
    assert len({reply.body["id"] for reply in replies}) == 2


def test_a_caller_who_asks_again_with_a_key_gets_the_job_of_that_key(server: Server, payload: dict[str, str]) -> None:
    before = len(jobs(server))
    headers = {**dict([CALLER]), "Idempotency-Key": "a caller's own"}
    first = walk(server, reporting(server, COMPLETED)).call(payload, headers=headers)
    second = walk(server).call(payload, headers=headers)
    assert first.body["id"] == second.body["id"]
    assert len(jobs(server)) == before + 1


def test_a_caller_without_the_webhooks_secret_makes_no_job(server: Server, payload: dict[str, str]) -> None:
    before = len(jobs(server))
    assert walk(server).call(payload).status == 403
    assert len(jobs(server)) == before


@pytest.mark.campaign
def test_in_production_the_credential_is_an_api_key(tmp_path: Path) -> None:
    with serve(tmp_path, auth="production") as server:
        tenant, worker = (make_key(tmp_path, *options) for options in (["--tenant", "studio"], ["--worker"]))
        write_dataset(tmp_path / "tenants/studio/data/datasets/p", count=2)
        payload = make_payload(server, tenant=None, authorization=tenant)

        def report(_: float) -> None:
            [job] = server.ask("GET", "/jobs", tenant=None, authorization=tenant).document["data"]
            sent = server.ask("PATCH", f"/jobs/{job['id']}", COMPLETED, tenant="studio", authorization=worker)
            assert sent.status == 200, sent.body

        reply = call(walk(server, report, ("Authorization", tenant)), payload)
        assert (reply.status, reply.body["tenantId"]) == (200, "studio")
        assert call(walk(server, credential=("Authorization", "Bearer wrong")), payload).status == 401


@contextmanager
def nobody() -> Iterator[str]:
    """The URL of a port that is taken and listens to nobody."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The URL of a server that has one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = body.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json" if body.startswith("{") else "text/html")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def make_key(root: Path, *options: str) -> str:
    """The header of a new API key."""
    command = [str(Path(sys.executable).with_name("influencerai")), "keys", "create", "--root", str(root), *options]
    return f"Bearer {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"


@pytest.mark.campaign
def test_a_real_training_is_waited_for(tmp_path: Path) -> None:
    with serve(tmp_path, runner="inline") as server:
        write_character("ava", tmp_path / "data/datasets/ava")
        payload = make_payload(server, "data/datasets/ava")
        reply = call(walk(server, lambda _: time.sleep(1)), payload)
        assert reply.status == 200, reply
        assert (tmp_path / reply.body["result"]["loraPath"]).is_file()
