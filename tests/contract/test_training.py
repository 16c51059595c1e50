"""Jobs of the API's reference that our own worker trains: running, completed and failed as it shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from influencerai.demo.characters import MODEL_ID, write_character
from influencerai.files.safetensors_file import read_safetensors_header
from tests.contract.reference import CONFIG, DATASET, JOB, example
from tests.contract.requests import assert_shown, curl, error_as_shown
from tests.servers import Server, serve_on_contract_port

TITLE = "Get Job by ID"
CONFIG_BODY = example("Create LoRA Configuration", "Request Body").document
MEASURED = {"result.finalLoss", "result.trainingTimeMinutes"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API and one worker, with pictures of a sample character where the reference has its dataset."""
    root = tmp_path_factory.mktemp("trained")
    for picture in write_character("ava", root / "data" / "datasets" / "my-influencer")[4:]:
        picture.unlink()
    with serve_on_contract_port(root, runner="inline") as running:
        yield running


def submit(server: Server, **changes: Any) -> dict[str, str]:
    """Ids of a job made by the reference's lines; `changes` of the configuration fit it to the embedded model."""
    ids = {DATASET: curl(server, "Create Dataset").document["id"]}
    body = {**CONFIG_BODY, "modelName": MODEL_ID, "resolution": 128, **changes}
    ids[CONFIG] = server.ask("POST", "/lora-configs", body).document["id"]
    ids[JOB] = curl(server, "Create Job", ids).document["id"]
    return ids


def test_running_and_completed(server: Server) -> None:
    ids = submit(server)
    job: dict[str, Any] = {}
    while "estimatedTimeRemaining" not in (job.get("result") or {}).get("progress", {}):
        assert job.get("status") != "completed", "it was never seen on its way"
        job = server.ask("GET", f"/jobs/{ids[JOB]}").document
    running = curl(server, TITLE, ids)
    free = {f"result.progress.{name}" for name in ("currentEpoch", "loss", "estimatedTimeRemaining")}
    assert_shown(running, TITLE, "Response (200 OK) - Running job", ids, free=free)
    assert re.fullmatch(r"\d+ (second|minute|hour)s?", running.document["result"]["progress"]["estimatedTimeRemaining"])

    ended = server.wait_for_job(ids[JOB], seconds=240)
    assert ended["status"] == "completed", ended["result"]
    answer = curl(server, TITLE, ids)
    assert_shown(answer, TITLE, "Response (200 OK) - Completed job", ids, free=MEASURED)
    assert answer.document["startedAt"] == running.document["startedAt"]
    assert 0 < answer.document["result"]["finalLoss"] < 1
    listed = curl(server, "List Jobs")
    shown_part = {**listed.document, "total": 12}
    assert_shown(
        listed, "List Jobs", "Response (200 OK)", ids, free={f"data.{name}" for name in MEASURED}, part=shown_part
    )
    for name in answer.document["result"]["checkpoints"]:
        metadata, tensors = read_safetensors_header(server.root / "data" / "loras" / "my-influencer-v1" / name)
        assert tensors
        assert metadata["ss_network_dim"] == "16"

    assert_downloads(server, ids[JOB])


def assert_downloads(server: Server, job: str) -> None:
    """The file, its ranges and its refusals."""
    files = server.ask("GET", f"/jobs/{job}/artifacts").document["data"]
    [final] = [
        item for item in files if item["path"] == "data/loras/my-influencer-v1/my-influencer-v1-final.safetensors"
    ]
    content = (server.root / final["path"]).read_bytes()
    whole = server.ask("GET", final["url"])
    assert (whole.status, whole.body, whole.headers["etag"]) == (200, content, f'"{final["sha256"]}"')
    part = server.ask("GET", final["url"], range="bytes=8-99")
    assert (part.status, part.body) == (206, content[8:100])
    assert server.ask("GET", final["url"], if_none_match=whole.headers["etag"]).status == 304
    beyond = server.ask("GET", final["url"], range=f"bytes={len(content)}-")
    assert error_as_shown(beyond) == {"statusCode": 416, "message": "The range is not in the file"}
    assert beyond.headers["content-range"] == f"bytes */{len(content)}"
    malformed = server.ask("GET", final["url"], range="bytes=x")
    assert error_as_shown(malformed) == {"statusCode": 400, "message": "The header Range is no range of bytes"}


def test_failed(server: Server) -> None:
    meta = {"maxGradNorm": 0, "warmupRatio": 0.5}  # so that it takes some epochs until the loss is no number
    ids = submit(server, name="Diverges", learningRate=1.0, networkAlpha=512, networkDim=1, meta=meta)
    ended = server.wait_for_job(ids[JOB], seconds=240)
    answer = curl(server, TITLE, ids)
    free = {"result.error", "result.epoch", "result.partialCheckpoints"}
    assert_shown(answer, TITLE, "Response (200 OK) - Failed job", ids, free=free)
    assert "not a number" in ended["result"]["error"]
    last, kept = ended["result"]["epoch"], ended["result"]["partialCheckpoints"]
    assert len(kept) == 2
    assert kept[-1].endswith(f"-epoch-{last - 1}.safetensors")
    for name in kept:
        read_safetensors_header(server.root / ended["training"]["outputDir"] / name)
