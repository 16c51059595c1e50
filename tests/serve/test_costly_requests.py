"""Requests that cost their sender little and the server much: each is bounded to milliseconds of the event loop."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from influencerai.domain.wire import LARGEST_DOCUMENT, MOST_UNKNOWN
from influencerai.serve.bodies import MOST_VALUES
from tests.serve.running import JSON, Api, checked_error, field_errors, picture

pytestmark = pytest.mark.anyio

CONFIG = {"name": "n", "modelName": "sd15"}
JOB: dict[str, Any] = {"type": "lora-training", "payload": {"datasetId": "x", "loraConfigId": "y"}}
NEAR = {f"optimize{number}": 1 for number in range(15_000)}
"""Names that are no option and resemble one."""


def named(count: int) -> dict[str, int]:
    return dict(list(NEAR.items())[:count])


COSTLY: dict[str, tuple[str, str, Any]] = {
    "unknown options": ("POST", "/lora-configs", {**CONFIG, "meta": named(3500)}),
    "unknown fields": ("POST", "/lora-configs", {**CONFIG, **NEAR}),
    "unknown fields of a dataset": ("POST", "/datasets", {"kind": "lora-training", "path": "x", **NEAR}),
    "unknown fields of a job": ("POST", "/jobs", {**JOB, **NEAR}),
    "unknown fields of a payload": ("POST", "/jobs", {**JOB, "payload": {**JOB["payload"], **named(3000)}}),
    "a long name": ("POST", "/lora-configs", {**CONFIG, "meta": {"o" * 60_000: 1}}),
    "wrong items": ("POST", "/lora-configs", {**CONFIG, "meta": {"samplePrompts": [1] * 15_000}}),
    "large meta": ("POST", "/datasets", {"kind": "lora-training", "path": "x", "meta": {"a": "x" * LARGEST_DOCUMENT}}),
    "large payload": ("POST", "/jobs", {**JOB, "payload": {**JOB["payload"], "note": "x" * LARGEST_DOCUMENT}}),
    "many values": ("POST", "/datasets", {"kind": "lora-training", "path": "x", "meta": {"a": [1] * 300_000}}),
    "many names": ("POST", "/lora-configs", {**CONFIG, "meta": {str(i): 1 for i in range(80_000)}}),
}  # fmt: skip
_SECONDS = 0.5
"""Of CPU, on a busy machine; the costliest took 8 s without bounds."""


@pytest.mark.parametrize("name", COSTLY)
async def test_the_event_loop_is_held_for_milliseconds(api: Api, name: str) -> None:
    method, path, body = COSTLY[name]
    text = json.dumps(body).encode()
    await api.config(meta={"free": 1})  # what is imported and built once
    begun = time.process_time()
    response = await api.send(method, path, content=text, headers=JSON)
    assert time.process_time() - begun < _SECONDS
    if name != "a long name":
        checked_error(response, 400)
    assert len(response.content) < 200_000


async def test_few_unknown_names_are_warned_of_and_many_refused(api: Api) -> None:
    few = {f"note{number}": 1 for number in range(MOST_UNKNOWN)}
    config = await api.config(meta=few)
    assert config["meta"] == few
    assert len([text for text in config["warnings"] if "is not an option" in text]) == MOST_UNKNOWN
    more = {**few, "another": 1}
    assert str(MOST_UNKNOWN) in field_errors(await api.post("/lora-configs", {**CONFIG, "meta": more}))["meta"][0]
    assert str(MOST_UNKNOWN) in field_errors(await api.post("/lora-configs", {**CONFIG, **more}))["_"][0]
    target = f"/lora-configs/{config['id']}"
    assert "meta" in field_errors(await api.patch(target, {"meta": more}))
    assert (await api.dataset(meta=more))["meta"] == more  # whose names mean nothing


async def test_documents_are_bounded_where_they_enter(api: Api) -> None:
    room = "x" * (LARGEST_DOCUMENT - 8)
    dataset = await api.dataset(meta={"a": room})
    assert dataset["meta"] == {"a": room}
    target = f"/datasets/{dataset['id']}"
    assert "64" in field_errors(await api.patch(target, {"meta": {"a": f"{room}x"}}))["meta"][0]
    assert "meta" in field_errors(await api.post("/lora-configs", {**CONFIG, "meta": {"a": f"{room}x"}}))
    job = await api.job(datasetId=dataset["id"])
    assert "result" in field_errors(await api.patch(f"/jobs/{job['id']}", {"result": {"a": f"{room}x"}}))


async def test_commas_in_texts_are_no_values(api: Api) -> None:
    meta = {"tags": 'a,b\\"[{' * (LARGEST_DOCUMENT // 20), "more": ["x,y"] * 1000}
    assert (await api.dataset(meta=meta))["meta"] == meta
    body = json.dumps({"meta": {"a": [1] * (MOST_VALUES + 1)}}).encode()
    assert (
        str(MOST_VALUES)
        in checked_error(await api.send("POST", "/datasets", content=body, headers=JSON), 400)["message"]
    )


SNAKES: list[tuple[str, Any, str]] = [
    ("/lora-configs", {**CONFIG, "learning_rate": 1e-4}, "learning_rate"),
    ("/lora-configs", {**CONFIG, "learning_rate": 1e-4, "learningRate": 1e-5}, "learning_rate"),
    ("/lora-configs", {"name": "n", "model_name": "sd15"}, "model_name"),
    ("/lora-configs", {**CONFIG, "meta": {"min_snr_gamma": 5}}, "meta.min_snr_gamma"),
    ("/jobs", {"type": "lora-training", "payload": {"dataset_id": "x"}}, "payload.dataset_id"),
]


@pytest.mark.parametrize(("path", "body", "field"), SNAKES)
async def test_snake_case_is_a_near_miss(api: Api, path: str, body: Any, field: str) -> None:
    """The library takes Python's names; a request that used one was answered as if it were documented."""
    errors = field_errors(await api.post(path, body))
    assert list(errors) == [field]
    assert "did you mean" in errors[field][0]


async def test_snake_case_in_a_change(api: Api) -> None:
    config = await api.config()
    for body in ({"learning_rate": 1e-4}, {"meta": {"min_snr_gamma": 5}}, {"is_default": True}):
        errors = field_errors(await api.patch(f"/lora-configs/{config['id']}", body))
        assert all("did you mean" in texts[0] for texts in errors.values())
    job = await api.job()
    assert "cost_tok" in field_errors(await api.patch(f"/jobs/{job['id']}", {"cost_tok": 1}))


async def test_captions_of_an_upload_are_bounded(api: Api) -> None:
    dataset = await api.dataset()
    begun = time.process_time()
    captions = {"captions": f'{{"a": [{"[]," * 2_000_000}1]}}'}
    files = {"files": ("a.png", picture())}
    answer = await api.send("POST", f"/datasets/{dataset['id']}/images", files=files, data=captions)
    assert str(MOST_VALUES) in field_errors(answer)["captions"][0]
    assert time.process_time() - begun < 2
