"""HEAD on everything that can be read: GET's status and headers, and no body."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from tests.serve.running import UNKNOWN_ID, Api
from tests.serve.test_downloads import DATA, publish

pytestmark = pytest.mark.anyio
_PASSING = {"x-request-id", "date"}


@pytest.mark.slow
async def test_every_readable_route_answers_its_headers(api: Api) -> None:
    api.pictures()
    dataset = await api.dataset()
    job = await api.failed_job()
    paths = [
        "/healthz", "/readyz", "/metrics", "/cluster", "/datasets", "/lora-configs", "/jobs", "/jobs/series",
        f"/datasets/{dataset['id']}", f"/datasets/{dataset['id']}/report", f"/datasets/{dataset['id']}/images",
        f"/datasets/{dataset['id']}/images/0.png/thumbnail", f"/lora-configs/{job['payload']['loraConfigId']}",
        f"/jobs/{job['id']}", f"/jobs/{job['id']}/events", f"/jobs/{job['id']}/metrics", f"/jobs/{job['id']}/artifacts",
        f"/jobs/{UNKNOWN_ID}", "/nowhere", "/api", "/api/openapi.json",
    ]  # fmt: skip
    for path in paths:
        read, head = await api.get(path), await api.send("HEAD", path)
        assert head.status_code == read.status_code, path
        assert head.content == b"", path
        assert head.headers.keys() == read.headers.keys(), path
        if path not in ("/metrics", "/readyz"):
            assert {name: text for name, text in head.headers.items() if name not in _PASSING} == {
                name: text for name, text in read.headers.items() if name not in _PASSING
            }, path
    id, _ = await publish(api, "a.safetensors")
    head = await api.send("HEAD", f"/jobs/{id}/artifacts/a.safetensors")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(DATA)))
    refused = await api.send("HEAD", f"/jobs/{job['id']}/retry")
    assert refused.status_code == 405
    allowed = (await api.send("PUT", "/datasets")).headers["allow"]
    assert "HEAD" in allowed.split(", ")
    shown = (await api.get("/metrics")).text
    assert re.search('method="HEAD",replica="[^"]+",route="/datasets"', shown)


async def test_a_stream_ends_with_its_headers(api: Api) -> None:
    job = await api.job()
    begun = time.monotonic()
    stream = {"accept": "text/event-stream"}
    head = await asyncio.wait_for(api.send("HEAD", f"/jobs/{job['id']}/events", headers=stream), 10)
    assert head.headers["content-type"].startswith("text/event-stream")
    assert time.monotonic() - begun < 5
    await asyncio.sleep(0)
    assert api.service.event_streams.open_streams == 0
