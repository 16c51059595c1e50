"""Jobs over HTTP: submitted, reported on by strangers, cancelled, tried again, deleted and counted."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from influencerai.store.queue import PublishedFile
from influencerai.store.schema import jobs
from influencerai.store.times import to_milliseconds
from tests.serve.running import UNKNOWN_ID, Api, checked_error, field_errors

pytestmark = pytest.mark.anyio

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.mark.slow
async def test_create(api: Api) -> None:
    api.pictures()
    dataset, config = await api.dataset(meta={"triggerWord": "ohwx"}), await api.config(epochs=7)
    payload = {"loraConfigId": config["id"], "datasetId": dataset["id"], "note": "mine", "priority": 7}
    answer = await api.post("/jobs", {"type": "lora-training", "payload": payload})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert job["payload"] == payload
    nothing = {name: job[name] for name in ("result", "costTok", "startedAt", "finishedAt", "retryOf")}
    assert set(nothing.values()) == {None}
    assert (job["status"], job["type"], job["tenantId"]) == ("pending", "lora-training", "ann")
    assert TIME.fullmatch(job["createdAt"])
    assert job["warnings"][0] == "Unknown field 'payload.note' is ignored."
    assert "'sd15' is not on this server" in job["warnings"][1]
    await api.patch(f"/lora-configs/{config['id']}", {"epochs": 99})
    training = (await api.get(f"/jobs/{job['id']}")).json()["training"]
    assert training["config"]["epochs"] == 7
    assert training["config"]["meta"]["triggerWord"] == "ohwx"
    assert re.fullmatch("[0-9a-f]{64}", training["dataset"]["fingerprint"])
    assert training["outputDir"] == "data/loras/portrait"


@pytest.mark.slow
async def test_the_default_configuration_is_written_into_the_payload(api: Api) -> None:
    dataset = await api.dataset()
    body = {"type": "lora-training", "payload": {"datasetId": dataset["id"]}}
    assert "payload.loraConfigId" in field_errors(await api.post("/jobs", body))
    config = await api.config(isDefault=True)
    assert (await api.post("/jobs", body)).json()["payload"]["loraConfigId"] == config["id"]


@pytest.mark.slow
async def test_what_is_not_there_is_named(api: Api) -> None:
    dataset, config = await api.dataset(), await api.config()
    good = {"datasetId": dataset["id"], "loraConfigId": config["id"]}
    for field, noun in (("datasetId", "Dataset"), ("loraConfigId", "LoRA config")):
        body = {"type": "lora-training", "payload": {**good, field: UNKNOWN_ID}}
        refusal = checked_error(await api.post("/jobs", body), 404)
        assert refusal["message"] == f"{noun} {UNKNOWN_ID} not found"
        assert refusal["errors"]["fieldErrors"] == {f"payload.{field}": [refusal["message"]]}
    for payload in (
        {},
        {**good, "datasetId": ""},
        {**good, "datasetId": "x" * 65},
        {**good, "priority": 11},
        {**good, "priority": "5"},
    ):
        assert field_errors(await api.post("/jobs", {"type": "lora-training", "payload": payload}))
    assert "type" in field_errors(await api.post("/jobs", {"type": "content-generation", "payload": good}))
    assert (await api.get("/jobs")).json()["total"] == 0


@pytest.mark.slow
async def test_a_dry_run_stores_nothing(any_api: Api) -> None:
    any_api.pictures()
    dataset, config = await any_api.dataset(), await any_api.config()
    pending = await any_api.dataset(path="data/nowhere")
    payload = {"datasetId": dataset["id"], "loraConfigId": config["id"]}
    body = {"type": "lora-training", "payload": payload}
    before = await any_api.rows()
    for model in (None, "/etc/passwd", "../../etc/passwd", "sdxl"):
        if model:
            await any_api.patch(f"/lora-configs/{config['id']}", {"modelName": model})
        answer = await any_api.post("/jobs?dryRun=true", body, headers={"idempotency-key": "dry"})
        assert answer.status_code == 200, answer.text
        assert "location" not in answer.headers
        assert "root:" not in answer.text
        assert str(any_api.root) not in answer.text
    payload["datasetId"] = pending["id"]
    assert (await any_api.post("/jobs?dryRun=true", body)).status_code in (200, 400)
    payload["datasetId"] = UNKNOWN_ID
    checked_error(await any_api.post("/jobs?dryRun=true", body), 404)
    assert await any_api.rows() == before
    assert not (any_api.root / "data/loras").exists()


@pytest.mark.slow
async def test_a_strangers_worker_reports(any_api: Api) -> None:
    job = await any_api.job()
    path = f"/jobs/{job['id']}"
    started = (await any_api.patch(path, {"status": "running"})).json()
    assert started["result"] == {"progress": {"currentEpoch": 0, "totalEpochs": 10}}
    assert TIME.fullmatch(started["startedAt"])
    assert started["finishedAt"] is None
    result = {"progress": {"currentEpoch": 5, "totalEpochs": 20, "loss": 0.0456}, "extra": [None, "\0"]}
    await asyncio.sleep(0.01)
    again = (await any_api.patch(path, {"status": "running", "result": result})).json()
    assert again["result"] == result
    assert again["startedAt"] == started["startedAt"]
    assert again["updatedAt"] > started["updatedAt"]
    assert (await any_api.patch(path, {"costTok": 12})).json()["result"] == result
    checked_error(await any_api.patch(path, {"status": "pending"}), 409)
    final = {"loraPath": "x.safetensors", "checkpoints": []}
    body = {"status": "completed", "result": final, "startedAt": "2020-01-01T00:00:00.000Z", "finishedAt": "2020"}
    done = (await any_api.patch(path, body)).json()
    assert (done["status"], done["result"], done["startedAt"]) == ("completed", final, started["startedAt"])
    assert TIME.fullmatch(done["finishedAt"])
    for status in ("pending", "running", "failed"):
        assert "has ended" in checked_error(await any_api.patch(path, {"status": status}), 409)["message"]
    checked_error(await any_api.patch(path, {"result": {"other": 1}}), 409)
    same = (await any_api.patch(path, {"status": "completed", "result": final, "costTok": 99})).json()
    assert (same["costTok"], same["finishedAt"]) == (99, done["finishedAt"])
    for bad in (-1, 1.5, "1", True, 2**63):
        assert "costTok" in field_errors(await any_api.patch(path, {"costTok": bad}))
    checked_error(await any_api.post(f"{path}/cancel"), 409)
    checked_error(await any_api.post(f"{path}/retry"), 409)
    seqs = [event["seq"] for event in (await any_api.get(f"{path}/events")).json()["data"]]
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_pending_may_end_at_once(any_api: Api, status: str) -> None:
    job = await any_api.job()
    ended = (await any_api.patch(f"/jobs/{job['id']}", {"status": status, "result": {"error": "x"}})).json()
    assert ended["status"] == status
    assert ended["finishedAt"] >= ended["startedAt"]


@pytest.mark.slow
async def test_our_own_attempt_alone_reports(api: Api) -> None:
    job = await api.job()
    await api.claim()
    reports: list[dict[str, Any]] = [{"status": "running"}, {"status": "failed"}, {"result": {}}, {"costTok": 1}, {}]
    for body in reports:
        refusal = checked_error(await api.patch(f"/jobs/{job['id']}", body), 409)
        assert "attempt 1" in refusal["message"]
    assert (await api.get(f"/jobs/{job['id']}")).json()["result"]["progress"]["currentEpoch"] == 0


@pytest.mark.slow
async def test_cancel(any_api: Api) -> None:
    job = await any_api.job()
    path = f"/jobs/{job['id']}"
    ended = (await any_api.post(f"{path}/cancel")).json()
    assert ended["status"] == "failed"
    assert ended["result"].items() >= {"error": "Cancelled", "cancelled": True}.items()
    assert ended["finishedAt"]
    assert (await any_api.post(f"{path}/cancel")).json() == ended
    other = await any_api.failed_job()
    assert [job["id"] for job in (await any_api.get("/jobs?status=cancelled")).json()["data"]] == [ended["id"]]
    assert (await any_api.get("/jobs?status=cancelled&type=lora-training")).json()["total"] == 1
    failed = (await any_api.get("/jobs?status=failed")).json()
    assert {job["id"] for job in failed["data"]} == {ended["id"], other["id"]}
    assert failed["total"] == 2
    running = await any_api.job()
    await any_api.claim()
    asked = (await any_api.post(f"/jobs/{running['id']}/cancel")).json()
    assert (asked["status"], asked["cancelRequested"]) == ("running", True)
    assert (await any_api.post(f"/jobs/{running['id']}/cancel")).status_code == 200


@pytest.mark.slow
async def test_retry(any_api: Api) -> None:
    job = await any_api.failed_job()
    state = any_api.service.folders.run_dir("ann", job["id"])
    state.mkdir(parents=True)
    (state / "state-1.safetensors").write_bytes(b"state")
    answer = await any_api.post(f"/jobs/{job['id']}/retry", headers={"idempotency-key": "r"})
    again = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/jobs/{again['id']}"
    assert (again["status"], again["retryOf"], again["payload"]) == ("pending", job["id"], job["payload"])
    assert again["warnings"] == []
    new_state = any_api.service.folders.run_dir("ann", again["id"]) / "state-1.safetensors"
    assert new_state.read_bytes() == b"state"
    repeated = await any_api.post(f"/jobs/{job['id']}/retry", headers={"idempotency-key": "r"})
    assert repeated.content == answer.content
    checked_error(await any_api.post(f"/jobs/{again['id']}/retry"), 409)
    assert (await any_api.get(f"/jobs/{job['id']}")).json()["status"] == "failed"
    for noun, id in (("datasets", job["payload"]["datasetId"]), ("lora-configs", job["payload"]["loraConfigId"])):
        deleted = await any_api.delete(f"/{noun}/{id}")
        assert (noun, deleted.status_code) in (("datasets", 400), ("lora-configs", 200))
    await any_api.post(f"/jobs/{again['id']}/cancel")
    assert (await any_api.post(f"/jobs/{again['id']}/retry")).json()["retryOf"] == again["id"]


async def test_a_job_that_an_earlier_version_planned_keeps_its_folder_and_names(any_api: Api) -> None:
    """Names gave other slugs then, of ASCII letters alone."""
    config = await any_api.config(name="Zoë")
    job = await any_api.job(loraConfigId=config["id"])
    lease, stored = await any_api.claim()
    assert stored.output_dir == "data/loras/zoe"
    folder = any_api.root / "data/loras/zo"
    folder.mkdir(parents=True)
    (folder / ".influencerai-run").write_text(job["id"])
    for name in ("zo-epoch-1.safetensors", "zoe-epoch-1.safetensors"):
        (folder / name).write_bytes(b"x")
    async with any_api.service.store.write() as transaction:
        await transaction.queue.freeze(lease, plan={"spec": {"outputName": "zo"}}, output_dir="data/loras/zo")
        await transaction.queue.finish(lease, ending="failed", result={"error": "no"})
    again = (await any_api.post(f"/jobs/{job['id']}/retry")).json()
    _, retried = await any_api.claim()
    assert (retried.job.id, retried.output_dir) == (again["id"], "data/loras/zo")
    assert (await any_api.delete(f"/jobs/{job['id']}")).json() == {"success": True, "warnings": []}
    assert [item.name for item in folder.iterdir()] == ["zoe-epoch-1.safetensors"]


@pytest.mark.slow
async def test_delete_takes_the_jobs_own_files(any_api: Api) -> None:
    job = await any_api.job()
    path = f"/jobs/{job['id']}"
    checked_error(await any_api.delete(path), 409)
    lease, stored = await any_api.claim()
    folder = any_api.root / stored.output_dir
    folder.mkdir(parents=True)
    (folder / ".influencerai-run").write_text(job["id"])
    leftover = "portrait-0-epoch-1.safetensors"  # written, but never published
    for name in ("a.safetensors", "mine.txt", "mine.safetensors", leftover):
        (folder / name).write_bytes(b"x")
    run = any_api.service.folders.run_dir("ann", job["id"])
    run.mkdir(parents=True)
    published = PublishedFile(
        name="a.safetensors",
        kind="lora",
        path=f"{stored.output_dir}/a.safetensors",
        size=1,
        sha256="0" * 64,
        step=1,
        epoch=1,
    )
    async with any_api.service.store.write() as transaction:
        await transaction.queue.record(lease, seconds=60, files=[published])
    checked_error(await any_api.delete(path), 409)
    async with any_api.service.store.write() as transaction:
        await transaction.queue.finish(lease, ending="completed", result={})
    assert (await any_api.delete(path)).json() == {"success": True, "warnings": []}
    assert sorted(item.name for item in folder.iterdir()) == ["mine.safetensors", "mine.txt"]
    assert not run.exists()
    for method, suffix in (("GET", ""), ("GET", "/events"), ("GET", "/artifacts"), ("DELETE", "")):
        checked_error(await any_api.send(method, path + suffix), 404)
    assert (await any_api.get("/jobs")).json()["total"] == 0


@pytest.mark.slow
async def test_lists(any_api: Api) -> None:
    first = await any_api.job()
    made = [first] + [await any_api.job(**first["payload"]) for _ in range(4)]
    ids = [job["id"] for job in made]
    assert [job["id"] for job in (await any_api.get("/jobs")).json()["data"]] == ids[::-1]
    page = await any_api.get("/jobs?sortOrder=asc&take=2&skip=2")
    assert [job["id"] for job in page.json()["data"]] == ids[2:4]
    assert [page.headers[f"x-{name}"] for name in ("total-count", "take", "skip")] == ["5", "2", "2"]
    await any_api.patch(f"/jobs/{ids[0]}", {"status": "running"})
    assert (await any_api.get("/jobs?sortBy=updatedAt&take=1")).json()["data"][0]["id"] == ids[0]
    assert (await any_api.get("/jobs?status=running")).json()["total"] == 1
    assert (await any_api.get("/jobs?type=content-generation")).json() == {
        "data": [],
        "total": 0,
        "take": 20,
        "skip": 0,
    }
    assert (await any_api.get("/jobs?type=lora-training&status=pending")).json()["total"] == 4


@pytest.mark.slow
async def test_series(any_api: Api) -> None:
    today = datetime.now(UTC).replace(hour=12)
    first = await any_api.job()
    plan: list[tuple[str, int, int]] = [  # status, days since creation, days since the end
        ("completed", 20, 0), ("completed", 20, 1), ("failed", 9, 6), ("failed", 9, 7), ("pending", 0, 0),
        ("running", 8, 0), ("completed", 400, 84), ("completed", 400, 83),
    ]  # fmt: skip
    for number, (status, created, ended) in enumerate(plan):
        job = await any_api.job(**first["payload"]) if number else first
        if status != "pending":
            await any_api.patch(f"/jobs/{job['id']}", {"status": status})
        times: dict[str, Any] = {"created_at": to_milliseconds(today - timedelta(days=created))}
        if status in ("completed", "failed"):
            times["finished_at"] = to_milliseconds(today - timedelta(days=ended))
        async with any_api.service.store.database.write() as connection:
            await connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(times))

    async def series(query: str) -> list[dict[str, Any]]:
        found = (await any_api.get(f"/jobs/series{query}")).json()
        assert found["window"] in query or found["window"] == "week"
        rows: list[dict[str, Any]] = found["data"]
        assert [row["date"] for row in rows] == sorted(row["date"] for row in rows)
        return rows

    def counts(row: dict[str, Any]) -> tuple[int, ...]:
        return tuple(row[name] for name in ("completed", "failed", "pending", "running"))

    weeks = await series("")
    assert len(weeks) == 12
    assert weeks[-1]["date"] == today.date().isoformat()
    assert weeks[-2]["date"] == (today - timedelta(days=7)).date().isoformat()
    assert [counts(row) for row in weeks[-2:]] == [(0, 1, 0, 1), (2, 1, 1, 0)]
    assert counts(weeks[0]) == (1, 0, 0, 0)  # 83 days ago, not 84
    days = await series("?window=day&buckets=8")
    assert [counts(row) for row in days] == [
        (0, 1, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0), (1, 0, 1, 0),
    ]  # fmt: skip
    assert len(await series("?window=day")) == 30
    months = await series("?window=month")
    assert len(months) == 12
    for row in months:
        assert (datetime.fromisoformat(row["date"]) + timedelta(days=1)).day == 1
    assert sum(sum(counts(row)) for row in months) == len(plan)
    assert len(await series("?window=month&buckets=366")) == 366
