"""Two tenants: whatever one asks for, the other's things are not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import select

from influencerai.settings import Settings
from influencerai.store.events import StepFigures
from influencerai.store.queue import PublishedFile
from influencerai.store.schema import metadata
from tests.serve.running import ANN, BOB, UNKNOWN_ID, Api, picture, routes, running

pytestmark = pytest.mark.anyio

OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")} | {
    ("GET", "/admin/tenants"),
    ("GET", "/admin/jobs"),
    ("GET", "/admin/tenants/{tenant}"),
    ("PATCH", "/admin/tenants/{tenant}/quotas"),
}
"""About no tenant."""
OWN_VIEW = {("GET", "/cluster"), ("GET", "/usage"), ("GET", "/models"), ("GET", "/presets")}
"""What all tenants share, and of the cluster the asking tenant's part; tested on their own."""
LISTS = {("GET", "/datasets"), ("GET", "/lora-configs"), ("GET", "/jobs"), ("GET", "/jobs/series")}
CREATES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/datasets"): {"json": {"kind": "lora-training", "path": "data/datasets/me"}},
    ("POST", "/lora-configs"): {"json": {"name": "Portrait 0", "modelName": "sd15"}},
}
"""What names no other thing; the same names are free for both."""
_CAPTION = {"json": {"caption": "mine"}}
BY_ID: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/datasets/{id}"): {},
    ("PATCH", "/datasets/{id}"): {"json": {"meta": {"mine": True}}},
    ("DELETE", "/datasets/{id}"): {},
    ("PATCH", "/datasets/{id}/status"): {"json": {"status": "failed"}},
    ("GET", "/datasets/{id}/report"): {"params": {"refresh": "true"}},
    ("GET", "/datasets/{id}/images"): {},
    ("POST", "/datasets/{id}/images"): {"files": {"files": ("new.png", picture(7))}},
    ("GET", "/datasets/{id}/images/{image:path}/thumbnail"): {},
    ("PUT", "/datasets/{id}/images/{image:path}/caption"): _CAPTION,
    ("GET", "/lora-configs/{id}"): {},
    ("PATCH", "/lora-configs/{id}"): {"json": {"epochs": 3, "isDefault": True}},
    ("DELETE", "/lora-configs/{id}"): {},
    ("GET", "/jobs/{id}"): {},
    ("PATCH", "/jobs/{id}"): {"json": {"status": "running", "result": {"stolen": True}, "costTok": 1}},
    ("DELETE", "/jobs/{id}"): {},
    ("POST", "/jobs/{id}/cancel"): {},
    ("POST", "/jobs/{id}/retry"): {},
    ("GET", "/jobs/{id}/events"): {},
    ("GET", "/jobs/{id}/metrics"): {},
    ("GET", "/jobs/{id}/artifacts"): {},
    ("GET", "/jobs/{id}/artifacts/{name}"): {},
    ("HEAD", "/jobs/{id}/artifacts/{name}"): {},
    ("GET", "/jobs/{id}/artifacts/{name}/thumbnail"): {},
}
BY_BODY = {("POST", "/jobs")}


async def fill(api: Api, tenant: str) -> dict[str, str]:
    """Everything that a tenant can have; ids by the noun in the routes' paths."""
    root = api.service.folders.make(tenant)
    api.pictures(root=root)
    dataset = await api.dataset(tenant=tenant, meta={"owner": tenant})
    config = await api.config(tenant=tenant, name="Portrait 0", isDefault=True)
    job = await api.job(tenant=tenant, datasetId=dataset["id"], loraConfigId=config["id"])
    lease, _ = await api.claim()
    file = root / "data/loras/portrait-0/portrait-0-final.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    published = PublishedFile(
        name=file.name, kind="lora", path=str(file.relative_to(root)), size=7, sha256="0" * 64, step=1, epoch=1
    )
    (file.parent / "sample.png").write_bytes(picture(1))
    sample = replace(published, name="sample.png", kind="sample", path="data/loras/portrait-0/sample.png")
    async with api.service.store.write() as transaction:
        await transaction.queue.record(
            lease, seconds=60, files=[published, sample], figures=[StepFigures(step=1, epoch=1, loss=0.5)]
        )
        await transaction.queue.finish(lease, ending="failed", result={"error": f"of {tenant}"})
    return {"datasets": dataset["id"], "lora-configs": config["id"], "jobs": job["id"]}


async def everything(api: Api) -> tuple[Any, Any]:
    """All rows, and all files with their bytes."""
    async with api.service.store.database.read() as connection:
        rows = {
            table.name: sorted(str(tuple(row)) for row in await connection.execute(select(table)))
            for table in metadata.sorted_tables
            if table.name not in ("tenants", "workers")
        }
    files = {path: path.read_bytes() for path in sorted(api.root.rglob("*")) if path.is_file()}
    return rows, {path: data for path, data in files.items() if ".db" not in path.name}


def filled_in(path: str, id: str) -> str:
    path = path.replace("{name}/thumbnail", "sample.png/thumbnail")
    return path.replace("{id}", id).replace("{image:path}", "0.png").replace("{name}", "portrait-0-final.safetensors")


def without_id(response: Response, id: str) -> tuple[int, bytes, Mapping[str, str]]:
    """An answer as it would be about any id."""
    headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
    return response.status_code, response.content.replace(id.encode(), b"ID"), headers


async def test_every_route_is_in_the_matrix(api: Api) -> None:
    assert routes(api.app) == OPEN | OWN_VIEW | LISTS | CREATES.keys() | BY_ID.keys() | BY_BODY


async def test_another_tenants_id_is_an_unknown_id(both_api: Api) -> None:
    api = both_api
    ids = await fill(api, ANN)
    before = await everything(api)
    for (method, path), options in BY_ID.items():
        id = ids[path.split("/")[1]]
        foreign = await api.send(method, filled_in(path, id), tenant=BOB, **options)
        unknown = await api.send(method, filled_in(path, UNKNOWN_ID), tenant=BOB, **options)
        assert foreign.status_code == 404, (method, path, foreign.text)
        assert without_id(foreign, id) == without_id(unknown, UNKNOWN_ID), (method, path)
        assert method == "HEAD" or f"{id} not found" in foreign.json()["message"]
    stream = {"accept": "text/event-stream"}
    foreign = await api.get(f"/jobs/{ids['jobs']}/events", tenant=BOB, headers=stream)
    unknown = await api.get(f"/jobs/{UNKNOWN_ID}/events", tenant=BOB, headers=stream)
    assert without_id(foreign, ids["jobs"]) == without_id(unknown, UNKNOWN_ID)
    assert await everything(api) == before


async def test_the_owner_reaches_all_of_it(both_api: Api) -> None:
    """So that the matrix above does not pass because its requests are bad."""
    ids = await fill(both_api, ANN)
    last = [key for key in BY_ID if key[0] == "DELETE"]
    for method, path in [key for key in BY_ID if key not in last] + [("DELETE", "/jobs/{id}")]:
        response = await both_api.send(method, filled_in(path, ids[path.split("/")[1]]), **BY_ID[method, path])
        expected = (409,) if (method, path) in [("PATCH", "/jobs/{id}"), ("POST", "/jobs/{id}/cancel")] else (200, 201)
        assert response.status_code in expected, (method, path, response.text)


@pytest.mark.parametrize("foreign", ["datasetId", "loraConfigId"])
async def test_a_job_on_another_tenants_things_is_one_on_unknown_ones(both_api: Api, foreign: str) -> None:
    ids = await fill(both_api, ANN)
    mine = {
        "datasetId": (await both_api.dataset(tenant=BOB))["id"],
        "loraConfigId": (await both_api.config(tenant=BOB))["id"],
    }
    id = ids["datasets" if foreign == "datasetId" else "lora-configs"]
    before = await everything(both_api)
    for params in ({}, {"dryRun": "true"}):
        answers = []
        for named in (id, UNKNOWN_ID):
            body = {"type": "lora-training", "payload": {**mine, foreign: named}}
            response = await both_api.post("/jobs", body, tenant=BOB, params=params)
            assert response.status_code == 404
            assert f"payload.{foreign}" in response.json()["errors"]["fieldErrors"]
            answers.append(without_id(response, named))
        assert answers[0] == answers[1]
    assert await everything(both_api) == before


async def test_anothers_default_configuration_is_none(api: Api) -> None:
    await fill(api, ANN)
    dataset = await api.dataset(tenant=BOB)
    body = {"type": "lora-training", "payload": {"datasetId": dataset["id"]}}
    response = await api.post("/jobs", body, tenant=BOB)
    assert response.status_code == 400
    assert "payload.loraConfigId" in response.json()["errors"]["fieldErrors"]


async def test_lists_and_series_hold_nothing_of_the_others(api: Api) -> None:
    ids = await fill(api, ANN)
    for query in ("", "?sortOrder=asc", "?take=100&skip=0"):
        assert (datasets := await api.get(f"/datasets{query}", tenant=BOB)).json() == []
        assert datasets.headers["x-total-count"] == "0"
    for path in (
        "/lora-configs",
        "/lora-configs?isDefault=true",
        "/jobs",
        "/jobs?status=failed",
        "/jobs?type=lora-training",
    ):
        page = (await api.get(path, tenant=BOB)).json()
        assert (page["data"], page["total"]) == ([], 0)
        assert (await api.get(path)).json()["total"] == 1
    for window in ("day", "week", "month"):
        theirs = (await api.get(f"/jobs/series?window={window}", tenant=BOB)).json()["data"]
        assert {count for row in theirs for name, count in row.items() if name != "date"} == {0}
        ours = (await api.get(f"/jobs/series?window={window}")).json()["data"]
        assert sum(row["failed"] for row in ours) == 1
    body = json.dumps((await api.get("/metrics", tenant=BOB)).text)
    assert not [id for id in (*ids.values(), ANN, BOB) if f'"{id}"' in body]


async def test_names_defaults_and_keys_are_each_tenants_own(api: Api) -> None:
    key = {"idempotency-key": "one"}
    for number, tenant in enumerate((ANN, BOB)):
        answers = [
            await api.post(path, tenant=tenant, headers=key, body=CREATES["POST", path]["json"] | extra)
            for path, extra in (("/datasets", {}), ("/lora-configs", {"isDefault": True}))
        ]
        assert [answer.status_code for answer in answers] == [201, 201], number
        assert {answer.json()["tenantId"] for answer in answers} == {tenant}
    for tenant in (ANN, BOB):
        assert (await api.get("/lora-configs?isDefault=true", tenant=tenant)).json()["total"] == 1


async def test_in_production_each_tenant_has_its_own_files(tmp_path: Any, database_url: str) -> None:
    settings = Settings(root=tmp_path, database_url=database_url, auth="production", rate_limits=False)
    async with running(settings) as api:
        secrets = {tenant: (await api.service.keys.create(tenant=tenant))[1] for tenant in (ANN, BOB)}
        keys = {tenant: {"authorization": f"Bearer {secret}"} for tenant, secret in secrets.items()}
        api.pictures(root=api.service.folders.make(ANN))
        body = {"kind": "lora-training", "path": "data/datasets/me"}
        statuses = {
            tenant: (await api.post("/datasets", body, tenant=tenant, headers=keys[tenant])).json()["status"]
            for tenant in (ANN, BOB)
        }
        assert statuses == {ANN: "ready", BOB: "pending"}
        for path in ("../ann/data/datasets/me", "tenants/ann/data", "data/../../ann"):
            answer = await api.post("/datasets", {**body, "path": path}, tenant=BOB, headers=keys[BOB])
            assert answer.status_code == 400 or answer.json()["status"] == "pending"
