"""LoRA configurations over HTTP: the rules that the contract leaves to the server."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.serve.running import Api, checked_error, field_errors

pytestmark = pytest.mark.anyio

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def test_create(api: Api) -> None:
    body = {
        "name": "My Influencer SDXL Balanced", "description": "Balanced", "modelName": "stabilityai/sdxl", "epochs": 20,
        "learningRate": 0.0001, "batchSize": 2, "resolution": 1024, "networkDim": 16, "networkAlpha": 8,
        "outputPath": "data/loras/my-influencer-v1", "isDefault": False,
        "meta": {"optimizer": "AdamW8bit", "lrScheduler": "cosine", "minSnrGamma": 5},
    }  # fmt: skip
    answer = await api.post("/lora-configs", body)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/lora-configs/{made['id']}"
    assert {name: made[name] for name in body} == body
    assert made["tenantId"] == "ann"
    assert TIME.fullmatch(made["createdAt"])
    assert made["createdAt"] == made["updatedAt"]
    assert ["is not on this server" in text for text in made["warnings"]] == [True]
    shown = (await api.get(f"/lora-configs/{made['id']}")).json()
    assert shown == {name: value for name, value in made.items() if name != "warnings"}


async def test_warnings(api: Api) -> None:
    resolution = (await api.config(name="a", resolution=500, networkDim=32))["warnings"]
    assert any("500" in text for text in resolution)
    alpha = (await api.config(name="b", networkDim=8))["warnings"]
    assert any("networkAlpha 16 exceeds networkDim 8" in text for text in alpha)
    unknown = (await api.config(name="c", zebra=1, meta={"zebra": 1}))["warnings"]
    assert any("'zebra'" in text for text in unknown)
    assert any("meta.zebra" in text for text in unknown)


async def test_names(any_api: Api) -> None:
    made = await any_api.config(name="  Portrait \n")
    assert made["name"] == "Portrait"
    refusal = checked_error(await any_api.post("/lora-configs", {"name": "Portrait ", "modelName": "x"}), 409)
    assert refusal["message"] == "LoRA config with name 'Portrait' already exists"
    assert refusal["id"] == made["id"]
    other = await any_api.config(name="portrait")  # another name
    assert (await any_api.patch(f"/lora-configs/{made['id']}", {"name": " Portrait"})).status_code == 200
    refusal = checked_error(await any_api.patch(f"/lora-configs/{other['id']}", {"name": "Portrait"}), 409)
    assert refusal["id"] == made["id"]
    assert (await any_api.get(f"/lora-configs/{other['id']}")).json()["name"] == "portrait"


async def test_change(any_api: Api) -> None:
    made = await any_api.config(description="old", outputPath="data/a", meta={"seed": 1, "minSnrGamma": 5})
    path = f"/lora-configs/{made['id']}"
    await asyncio.sleep(0.005)
    nothing = (await any_api.patch(path, {})).json()
    assert {**made, "updatedAt": nothing["updatedAt"]} == nothing
    changed = (await any_api.patch(path, {"epochs": 30, "meta": {"seed": 2}})).json()
    assert changed["updatedAt"] > made["updatedAt"]
    assert changed == {**made, "epochs": 30, "meta": {"seed": 2}, "updatedAt": changed["updatedAt"]}
    cleared = (await any_api.patch(path, {"description": None, "outputPath": None})).json()
    assert (cleared["description"], cleared["outputPath"]) == (None, None)
    for name in ("name", "modelName", "epochs", "learningRate", "networkAlpha", "meta", "isDefault"):
        errors = field_errors(await any_api.patch(path, {name: None}))
        assert set(errors) == {name}
    checked_error(await any_api.patch("/lora-configs/unknown", {"epochs": 1}), 404)
    checked_error(await any_api.patch("/lora-configs/unknown", {}), 404)


@pytest.mark.slow
async def test_default(any_api: Api) -> None:
    first = await any_api.config(name="a", isDefault=True)
    second = await any_api.config(name="b", isDefault=True)
    assert (await any_api.get(f"/lora-configs/{first['id']}")).json()["isDefault"] is False
    await any_api.patch(f"/lora-configs/{first['id']}", {"isDefault": True})
    assert (await any_api.get(f"/lora-configs/{second['id']}")).json()["isDefault"] is False
    assert (await any_api.delete(f"/lora-configs/{second['id']}")).json() == {"success": True, "warnings": []}
    gone = (await any_api.delete(f"/lora-configs/{first['id']}")).json()
    assert gone["warnings"] == ["Deleted the default LoRA configuration. Consider setting a new default."]
    checked_error(await any_api.delete(f"/lora-configs/{first['id']}"), 404)


@pytest.mark.slow
async def test_delete_counts_the_jobs_that_use_it(any_api: Api) -> None:
    config = await any_api.config()
    jobs = [await any_api.job(loraConfigId=config["id"]) for _ in range(3)]
    await any_api.patch(f"/jobs/{jobs[0]['id']}", {"status": "running"})
    refusal = checked_error(await any_api.delete(f"/lora-configs/{config['id']}"), 400)
    assert refusal["message"] == "Cannot delete configuration: 3 active jobs (pending/running) are using it"
    for job in jobs[:2]:
        assert (await any_api.post(f"/jobs/{job['id']}/cancel")).status_code == 200
    refusal = checked_error(await any_api.delete(f"/lora-configs/{config['id']}"), 400)
    assert refusal["message"] == "Cannot delete configuration: 1 active jobs (pending/running) are using it"
    await any_api.post(f"/jobs/{jobs[2]['id']}/cancel")
    assert (await any_api.delete(f"/lora-configs/{config['id']}")).status_code == 200
    shown = (await any_api.get(f"/jobs/{jobs[0]['id']}")).json()
    assert shown["payload"]["loraConfigId"] == config["id"]
    assert shown["training"]["config"]["name"] == "Portrait"


async def test_lists(any_api: Api) -> None:
    names = ["b", "a", "B", "ä", "c"]
    for name in names:
        await any_api.config(name=name, modelName="sd15" if name < "b" else "sdxl")
    page = await any_api.get("/lora-configs?take=2&skip=1&sortBy=name&sortOrder=asc")
    body = page.json()
    assert [item["name"] for item in body["data"]] == ["a", "b"]
    assert (body["total"], body["take"], body["skip"]) == (5, 2, 1)
    assert [page.headers[f"x-{name}"] for name in ("total-count", "take", "skip")] == ["5", "2", "1"]
    newest = [item["name"] for item in (await any_api.get("/lora-configs")).json()["data"]]
    assert newest == names[::-1]
    beyond = (await any_api.get("/lora-configs?skip=9223372036854775807")).json()
    assert (beyond["data"], beyond["total"]) == ([], 5)
    assert (await any_api.get("/lora-configs?modelName=sd15")).json()["total"] == 2
    assert (await any_api.get("/lora-configs?modelName=SD15")).json()["total"] == 0
    walked = [
        item["id"]
        for skip in range(5)
        for item in (await any_api.get(f"/lora-configs?sortBy=updatedAt&take=1&skip={skip}")).json()["data"]
    ]
    assert len(set(walked)) == 5
