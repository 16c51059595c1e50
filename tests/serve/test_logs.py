"""Logs: one line a request that says what it was about, and never what nobody may read."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from influencerai.logs import configure_logs
from influencerai.settings import Settings
from tests.serve.running import ANN, Api, checked_error, picture, running

pytestmark = pytest.mark.anyio

CANARY = "canary-2f7e91"
SECRET = f"{CANARY}-jwt-secret-of-many-bytes"


@pytest.fixture
def captured() -> Iterator[io.StringIO]:
    """Everything that is logged, after `configure_logs`."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    buffer = io.StringIO()
    yield buffer
    root.handlers, root.level = before


def configure(settings: Settings, buffer: io.StringIO) -> None:
    configure_logs(settings)
    for handler in logging.getLogger().handlers:
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(buffer)


def lines(buffer: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in buffer.getvalue().splitlines()]


async def test_a_line_for_each_request(tmp_path: Path, sqlite_url: str, captured: io.StringIO) -> None:
    settings = Settings(root=tmp_path, database_url=sqlite_url, log_format="json")
    configure(settings, captured)
    async with running(settings) as api:
        job = await api.job()
        answer = await api.get(f"/jobs/{job['id']}/events?after=0", headers={"x-request-id": "mine-7"})
        assert answer.headers["x-request-id"] == "mine-7"
        await api.client.get("/datasets")
        for strange in ("a b", "x" * 65, "ü", "a\nb", ""):
            given = (await api.get("/datasets", headers={"x-request-id": strange.encode()})).headers["x-request-id"]
            assert given != strange
            assert given.isalnum()
        found = [line for line in lines(captured) if line["event"] == "request"]
    (line,) = [line for line in found if line["request_id"] == "mine-7"]
    wanted = {"method": "GET", "path": f"/jobs/{job['id']}/events", "status": 200, "tenant": ANN, "job_id": job["id"]}
    assert line.items() >= wanted.items()
    assert line["milliseconds"] > 0
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")
    assert [line["status"] for line in found if "tenant" not in line] == [401]
    assert len({line["request_id"] for line in found}) == len(found)


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_no_secret_is_ever_written_down(
    tmp_path: Path, sqlite_url: str, captured: io.StringIO, log_format: Any
) -> None:
    settings = Settings(
        root=tmp_path, database_url=sqlite_url, auth="production", rate_limits=False, jwt_secret=SECRET,
        log_level="debug", log_format=log_format,
    )  # fmt: skip
    configure(settings, captured)
    async with running(settings) as api:
        _, key = await api.service.keys.create(tenant=ANN)
        token = jwt.encode({"tenant_id": ANN, "exp": 2**40, "email": "ann@example.com"}, SECRET, "HS256")
        answers = [await everything(api, {"authorization": f"Bearer {secret}"}) for secret in (key, token)]
        _, worker = await api.service.keys.create(tenant=None)
        metrics = (await api.client.get("/metrics", headers={"x-api-key": worker})).text
        ready = (await api.client.get("/readyz")).text
    secrets = (CANARY, key, token, worker, key[12:], token.split(".")[2])
    for secret in secrets:
        assert secret not in captured.getvalue(), secret
        assert secret not in metrics + ready
        assert not [text for text in answers if secret in text and secret != CANARY]
    assert "RuntimeError" in captured.getvalue()  # what was unexpected is there, without values


async def everything(api: Api, credential: dict[str, str]) -> str:
    """Requests that carry secrets, good and bad ones; the errors' texts."""
    texts = []
    headers = {**credential, "idempotency-key": f"{CANARY}-key"}
    meta = {"triggerWord": f"{CANARY}-word", "note": f"{CANARY}-meta"}
    body = {"kind": "lora-training", "path": "data/me", "meta": meta}
    dataset = (await api.post("/datasets", body, headers=headers)).json()
    images = f"/datasets/{dataset['id']}/images"
    files = {"files": ("a.png", picture())}
    captions = {"captions": json.dumps({"a.png": f"{CANARY}-caption"}), "replace": "true"}
    assert (await api.send("POST", images, files=files, data=captions, headers=credential)).status_code == 200
    caption = {"caption": f"{CANARY}-caption too"}
    assert (await api.send("PUT", f"{images}/a.png/caption", json=caption, headers=credential)).status_code == 200
    config = {"name": "Portrait", "modelName": "sd15", "meta": {"note": f"{CANARY}-meta"}}
    made = (await api.post("/lora-configs", config, headers=headers)).json()
    payload = {"datasetId": dataset["id"], "loraConfigId": made["id"], "note": f"{CANARY}-payload"}
    job = (await api.post("/jobs", {"type": "lora-training", "payload": payload}, headers=headers)).json()
    assert (await api.get(f"/jobs/{job['id']}", headers=credential)).status_code == 200
    for events in ("events", "metrics", "artifacts"):
        answer = await api.get(f"/jobs/{job['id']}/{events}", headers=credential)
        assert CANARY not in answer.text
    for wrong in (f"{credential['authorization']}x", "Bearer iak_" + CANARY, f"Bearer a.{CANARY}.c", f"Basic {CANARY}"):
        texts.append((await api.get("/datasets", headers={"authorization": wrong})).text)
    texts.append((await api.post("/jobs", {"type": CANARY}, headers=headers)).text)
    failing = api.service.lora_configs.create
    api.service.lora_configs.create = broken  # type: ignore[assignment]
    answer = await api.post("/lora-configs", config, headers=headers)
    api.service.lora_configs.create = failing  # type: ignore[method-assign]
    assert checked_error(answer, 500)["message"] == "Internal server error"
    return "".join(texts)


async def broken(tenant: str, config: Any, **details: Any) -> None:
    """Fails with a secret among its local variables, as code of ours might."""
    hidden = f"{CANARY}-local"
    raise RuntimeError(f"of {len(hidden)} letters")


def test_lines_are_plain_where_nobody_looks_on(captured: io.StringIO, tmp_path: Path) -> None:
    """uvicorn and Ray add fields of their own, one with colours, which the line of a log file had too."""
    configure(Settings(root=tmp_path), captured)
    added = {"color_message": "\x1b[36mStarted\x1b[0m", "_ray_timestamp_ns": 7, "job_id": "j"}
    record = {"name": "uvicorn.error", "levelno": logging.INFO, "levelname": "INFO", "msg": "Started", **added}
    logging.getLogger("uvicorn.error").handle(logging.makeLogRecord(record))  # `extra` fails once Ray is imported
    assert "\x1b" not in captured.getvalue()
    assert "color_message" not in captured.getvalue()
    assert "_ray" not in captured.getvalue()
    assert "job_id=j" in captured.getvalue()


def test_what_others_say_again_and_again_is_counted(
    captured: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each connection that cannot be taken filled a disk with 50 MB within 40 s."""
    configure(Settings(root=tmp_path, log_format="json"), captured)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for number in range(1000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource %s", number)
        logging.getLogger("influencerai.requests").info("request")
    own = [line for line in lines(captured) if line["logger"] == "asyncio"]
    assert len(own) == 20
    assert len(lines(captured)) == 1020
    now += 11
    logging.getLogger("asyncio").error("socket.accept() out of system resource %s", 7)
    assert lines(captured)[-1]["event"] == "socket.accept() out of system resource 7 (980 more like this)"
