"""Races through the API: many requests at once, one outcome."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from influencerai.settings import Settings
from influencerai.store.pending_jobs import ClaimRules
from tests.serve.running import Api, checked_error, picture, running

pytestmark = pytest.mark.anyio


async def test_one_name_is_taken_once(both_api: Api) -> None:
    body = {"name": "Portrait", "modelName": "sd15"}
    answers = await asyncio.gather(*(both_api.post("/lora-configs", body) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 49}
    (winner,) = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    for answer in answers:
        if answer.status_code == 409:
            refusal = checked_error(answer, 409)
            assert refusal["message"] == "LoRA config with name 'Portrait' already exists"
            assert refusal["id"] == winner
    assert (await both_api.get("/lora-configs")).json()["total"] == 1


@pytest.mark.slow
async def test_there_is_one_default(both_api: Api) -> None:
    creates = [
        both_api.post("/lora-configs", {"name": f"c{number}", "modelName": "sd15", "isDefault": True})
        for number in range(50)
    ]
    made = [answer.json()["id"] for answer in await asyncio.gather(*creates)]
    assert (await both_api.get("/lora-configs?isDefault=true")).json()["total"] == 1
    changes = await asyncio.gather(*(both_api.patch(f"/lora-configs/{id}", {"isDefault": True}) for id in made))
    assert {answer.status_code for answer in changes} == {200}
    page = (await both_api.get("/lora-configs?isDefault=true&take=100")).json()
    assert len(page["data"]) == page["total"] == 1
    assert (await both_api.get("/lora-configs?isDefault=false&take=1")).json()["total"] == 49


async def test_one_key_makes_one_job(both_api: Api) -> None:
    both_api.pictures()
    dataset, config = await both_api.dataset(), await both_api.config()
    body = {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": config["id"]}}
    key = {"idempotency-key": "the only one"}
    answers = await asyncio.gather(*(both_api.post("/jobs", body, headers=key) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert (await both_api.get("/jobs")).json()["total"] == 1


async def test_one_owner_of_a_job_that_two_sides_take(tmp_path: Path, database_url: str) -> None:
    async with running(Settings(root=tmp_path, database_url=database_url)) as api:
        rules = ClaimRules(seconds=60, running_per_tenant=1000, dataset_wait_seconds=0)

        async def claim() -> str | None:
            async with api.service.store.write() as transaction:
                claimed = await transaction.queue.claim(node="ours", rules=rules)
            return None if claimed is None else claimed[0].job_id

        owners = Counter[str]()
        first = await api.job()
        for number in range(10):
            job = await api.job(**first["payload"]) if number else first
            ours, theirs = await asyncio.gather(
                claim(),
                api.patch(f"/jobs/{job['id']}", {"status": "running", "result": {"progress": {"currentEpoch": 1}}}),
            )
            detail = (await api.get(f"/jobs/{job['id']}")).json()
            assert detail["status"] == "running"
            (attempt,) = detail["attempts"]
            assert (theirs.status_code, ours) in ((200, None), (409, job["id"])), theirs.text
            assert attempt["node"] == ("ours" if ours else "external")
            assert detail["result"]["progress"]["currentEpoch"] == (0 if ours else 1)
            owners[attempt["node"]] += 1
        assert owners.total() == 10


async def test_captions_written_at_once_are_all_noted(both_api: Api) -> None:
    both_api.pictures(count=8)
    dataset = await both_api.dataset()
    paths = [f"/datasets/{dataset['id']}/images/{number}.png/caption" for number in range(8)]
    answers = await asyncio.gather(*(both_api.send("PUT", path, json={"caption": f"new {path}"}) for path in paths))
    assert {answer.status_code for answer in answers} == {200}
    images = (await both_api.get(f"/datasets/{dataset['id']}/images")).json()["data"]
    assert [image["caption"] for image in images] == [f"new {path}" for path in paths]


@pytest.mark.slow
async def test_uploads_at_once_are_all_there(api: Api) -> None:
    dataset = await api.dataset()
    path = f"/datasets/{dataset['id']}/images"
    uploads = [api.send("POST", path, files={"files": (f"{number}.png", picture(number))}) for number in range(10)]
    assert {answer.status_code for answer in await asyncio.gather(*uploads)} == {200}
    assert (await api.get(path)).json()["total"] == 10


async def test_deleting_what_is_being_used(both_api: Api) -> None:
    for number in range(5):
        dataset, config = await both_api.dataset(), await both_api.config(name=f"c{number}")
        body = {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": config["id"]}}
        created, *deleted = await asyncio.gather(
            both_api.post("/jobs", body),
            both_api.delete(f"/datasets/{dataset['id']}"),
            both_api.delete(f"/lora-configs/{config['id']}"),
        )
        statuses = [answer.status_code for answer in deleted]
        assert (created.status_code, statuses) in (
            (201, [400, 400]),
            (404, [200, 200]),
            (404, [400, 200]),
            (404, [200, 400]),
        ), (created.text, statuses)
        assert created.status_code != 404 or 200 in statuses
