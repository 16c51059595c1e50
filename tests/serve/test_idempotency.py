"""Idempotency keys: a request that is sent again gets the same answer, and makes nothing new."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.running import BOB, JSON, Api, checked_error

pytestmark = pytest.mark.anyio

KEY = {"idempotency-key": "k"}


async def test_the_same_request_gets_the_same_bytes(any_api: Api) -> None:
    dataset = {"kind": "lora-training", "path": "data/x", "meta": {"b": 1, "a": [1.5, None, "ü\0"]}, "zebra": 1}
    config = {"name": "Portrait", "modelName": "sd15", "networkAlpha": 64, "learningRate": 1e-4, "zebra": 1}
    bodies: dict[str, Any] = {"/datasets": dataset, "/lora-configs": config}
    for path, body in bodies.items():
        first = await any_api.post(path, body, headers=KEY)
        assert first.status_code == 201
        again = await any_api.post(path, body, headers=KEY)
        shuffled = await any_api.post(path, dict(reversed(body.items())), headers=KEY)
        spaced = await any_api.send("POST", path, content=repr_json(body), headers={**KEY, **JSON})
        for answer in (again, shuffled, spaced):
            assert (answer.status_code, answer.content) == (201, first.content)
            assert answer.headers["location"] == first.headers["location"]
    made = {path: (await any_api.get(path)).headers["x-total-count"] for path in bodies}
    assert made == {"/datasets": "1", "/lora-configs": "1"}


async def test_another_body_is_a_conflict(api: Api) -> None:
    body = {"name": "Portrait", "modelName": "sd15"}
    await api.post("/lora-configs", body, headers=KEY)
    refusal = await api.post("/lora-configs", {**body, "name": "Other"}, headers=KEY)
    assert "Idempotency-Key" in checked_error(refusal, 409)["message"]
    assert (await api.get("/lora-configs")).json()["total"] == 1


async def test_a_key_belongs_to_its_tenant_and_route(api: Api) -> None:
    body = {"kind": "lora-training", "path": "data/x"}
    answers = [
        await api.post("/datasets", body, headers=KEY),
        await api.post("/datasets", body, headers=KEY, tenant=BOB),
        await api.post("/lora-configs", {"name": "x", "modelName": "y"}, headers=KEY),
        await api.post("/datasets", body, headers={"idempotency-key": "K"}),
    ]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 4


async def test_a_refused_request_leaves_its_key_free(any_api: Api) -> None:
    taken = await any_api.config()
    body = {"name": "Portrait", "modelName": "sd15"}
    checked_error(await any_api.post("/lora-configs", body, headers=KEY), 409)
    checked_error(await any_api.post("/lora-configs", {**body, "epochs": 0}, headers=KEY), 400)
    await any_api.delete(f"/lora-configs/{taken['id']}")
    assert (await any_api.post("/lora-configs", body, headers=KEY)).status_code == 201


async def test_the_answer_stays_though_the_thing_has_changed(any_api: Api) -> None:
    body = {"name": "Portrait", "modelName": "sd15"}
    first = await any_api.post("/lora-configs", body, headers=KEY)
    await any_api.patch(f"/lora-configs/{first.json()['id']}", {"epochs": 3})
    assert (await any_api.post("/lora-configs", body, headers=KEY)).content == first.content
    await any_api.delete(f"/lora-configs/{first.json()['id']}")
    assert (await any_api.post("/lora-configs", body, headers=KEY)).content == first.content


def repr_json(body: Any) -> bytes:
    """The same document, written otherwise."""
    return json.dumps(body, indent=3, ensure_ascii=False).encode()
