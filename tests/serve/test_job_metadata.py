"""What users attach to jobs and find them by: metadata, dataset, configuration; and configurations sent inline."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.running import Api, checked_error, field_errors, made

pytestmark = pytest.mark.anyio
INLINE = {"name": "Inline", "modelName": "influencerai/tiny-avatars", "epochs": 3, "meta": {"optimizer": "Lion"}}


async def submit(api: Api, dataset: str, *, tenant: str = "ann", **fields: Any) -> dict[str, Any]:
    body = {"type": "lora-training", "payload": {"datasetId": dataset, "loraConfig": INLINE}, **fields}
    return made(await api.post("/jobs", body, tenant=tenant))


async def ids(api: Api, query: str, **options: Any) -> tuple[set[str], int]:
    found = (await api.get(f"/jobs?{query}", **options)).json()
    return {job["id"] for job in found["data"]}, found["total"]


@pytest.mark.slow
async def test_jobs_are_found_by_their_metadata(any_api: Api) -> None:
    dataset = (await any_api.dataset())["id"]
    first = await submit(any_api, dataset, metadata={"orderId": "A-17", "note": "a:b c"})
    second = await submit(any_api, dataset, metadata={"orderId": "A-17"})
    await submit(any_api, dataset)
    assert first["metadata"] == {"orderId": "A-17", "note": "a:b c"}
    assert (await any_api.get(f"/jobs/{first['id']}")).json()["metadata"] == first["metadata"]
    assert await ids(any_api, "metadata=orderId:A-17") == ({first["id"], second["id"]}, 2)
    assert await ids(any_api, "metadata=orderId:A-17&metadata=note:a:b%20c&status=pending") == ({first["id"]}, 1)
    assert await ids(any_api, "metadata=orderId:A-17&take=1&skip=1") == ({first["id"]}, 2)
    assert await ids(any_api, "metadata=orderId:A-18") == (set(), 0)
    assert await ids(any_api, "metadata=orderId:A-17", tenant="bob") == (set(), 0)
    assert "metadata.0" in field_errors(await any_api.get("/jobs?metadata=orderId"))


async def test_metadata_is_replaced_whole_in_any_state(any_api: Api) -> None:
    job = await submit(any_api, (await any_api.dataset())["id"], metadata={"orderId": "A-17"})
    await any_api.post(f"/jobs/{job['id']}/cancel")
    changed = (await any_api.patch(f"/jobs/{job['id']}", {"metadata": {"customer": "7"}})).json()
    assert (changed["metadata"], changed["status"]) == ({"customer": "7"}, "failed")
    assert await ids(any_api, "metadata=customer:7") == ({job["id"]}, 1)
    assert await ids(any_api, "metadata=orderId:A-17") == (set(), 0)
    refused = await any_api.patch(f"/jobs/{job['id']}", {"metadata": {"customer": "8"}, "status": "running"})
    checked_error(refused, 409)
    assert await ids(any_api, "metadata=customer:7") == ({job["id"]}, 1)
    checked_error(await any_api.patch("/jobs/unknown", {"metadata": {}}), 404)
    retried = (await any_api.post(f"/jobs/{job['id']}/retry")).json()
    assert retried["metadata"] == {"customer": "7"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "metadata",
    [
        {"order id": "1"}, {"": "1"}, {"k" * 41: "1"}, {"a:b": "1"}, {"key": 1}, {"key": None}, {"key": "v" * 501},
        {"key": "a\0b"}, {str(number): "x" for number in range(21)}, ["orderId"],
    ],
)  # fmt: skip
async def test_metadata_is_bounded(api: Api, metadata: Any) -> None:
    payload = {"datasetId": "x", "loraConfig": INLINE}
    errors = field_errors(await api.post("/jobs", {"type": "lora-training", "payload": payload, "metadata": metadata}))
    assert all(name.startswith("metadata") for name in errors)


@pytest.mark.slow
async def test_jobs_are_found_by_dataset_and_configuration(any_api: Api) -> None:
    one, other = await any_api.job(), await any_api.job()
    for name in ("datasetId", "loraConfigId"):
        assert await ids(any_api, f"{name}={one['payload'][name]}") == ({one["id"]}, 1)
        assert await ids(any_api, f"{name}={other['payload'][name]}&status=completed") == (set(), 0)
    [shown] = (await any_api.get(f"/jobs?datasetId={one['payload']['datasetId']}")).json()["data"]
    assert (shown["loraConfigName"], shown["modelName"], shown["datasetPath"]) == (
        "Portrait 0", "sd15", "data/datasets/me",
    )  # fmt: skip


@pytest.mark.slow
async def test_a_configuration_for_one_job_is_not_stored(any_api: Api) -> None:
    dataset = await any_api.dataset(meta={"triggerWord": "ohwx"})
    job = await submit(any_api, dataset["id"])
    assert job["payload"] == {"datasetId": dataset["id"], "loraConfig": INLINE}
    training = (await any_api.get(f"/jobs/{job['id']}")).json()["training"]
    assert (training["config"]["epochs"], training["options"]["optimizer"]) == (3, "Lion")
    assert training["config"]["meta"]["triggerWord"] == "ohwx"
    assert training["outputDir"] == "data/loras/inline"
    assert (await any_api.get("/lora-configs")).json()["total"] == 0
    clone = made(await any_api.post("/jobs", job))
    assert clone["payload"] == job["payload"]


@pytest.mark.slow
async def test_a_configuration_for_one_job_is_checked_field_by_field(api: Api) -> None:
    dataset = (await api.dataset())["id"]

    async def errors(payload: dict[str, Any]) -> dict[str, list[str]]:
        body = {"type": "lora-training", "payload": {"datasetId": dataset, **payload}}
        found = field_errors(await api.post("/jobs", body))
        assert field_errors(await api.post("/jobs?dryRun=true", body)) == found
        return found

    bad = {**INLINE, "epochs": 0, "optimizer": "Lion", "meta": {"repeats": "x"}}
    assert set(await errors({"loraConfig": bad})) == {
        "payload.loraConfig.epochs", "payload.loraConfig.optimizer", "payload.loraConfig.meta.repeats",
    }  # fmt: skip
    assert set(await errors({"loraConfig": {**INLINE, "outputPath": "../out"}})) == {"payload.loraConfig.outputPath"}
    assert "loraConfig.epochs" in (await errors({"loraConfig": INLINE, "epochs": 3}))["payload.epochs"][0]
    both = await errors({"loraConfig": INLINE, "loraConfigId": "x"})
    assert "not both" in both["payload"][0]


@pytest.mark.slow
async def test_a_strangers_result_has_the_documented_types(api: Api) -> None:
    job = await api.job()
    bad = {"progress": {"currentEpoch": "two"}, "loraPath": None, "error": 5}
    [text] = field_errors(await api.patch(f"/jobs/{job['id']}", {"status": "running", "result": bad}))["result"]
    assert {name for name in ("progress.currentEpoch", "loraPath", "error") if name in text} == {
        "progress.currentEpoch", "loraPath", "error",
    }  # fmt: skip
    good = {"progress": {"currentEpoch": 2, "loss": None, "mine": [1]}, "mine": {"a": None}}
    answered = (await api.patch(f"/jobs/{job['id']}", {"status": "running", "result": good})).json()
    assert answered["result"] == good
