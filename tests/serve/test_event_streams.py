"""Events of jobs, as pages and as streams over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient, Response

from influencerai.serve import event_source
from influencerai.service import event_streams
from influencerai.settings import Settings
from influencerai.store import Store
from tests.serve.running import ANN, BOB, UNKNOWN_ID, Api, checked_error, field_errors
from tests.serve.sockets import Served, served
from tests.store.rows import add_config, add_dataset, add_job

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream", "x-tenant-id": ANN}


@pytest.fixture
def server(tmp_path: Path, sqlite_url: str) -> Iterator[Served]:
    with served(Settings(root=tmp_path, database_url=sqlite_url, poll_seconds=0.02)) as running:
        yield running


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Store]:
    """The server's database, as a worker's process has it."""
    opened = Store(sqlite_url)
    yield opened
    await opened.database.close()


@pytest.fixture
async def client(server: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=server.url, timeout=20) as opened:
        yield opened


async def new_job(store: Store, *, name: str = "face", tenant: str = ANN) -> str:
    dataset, config = await add_dataset(store, tenant), await add_config(store, tenant, name=name)
    return (await add_job(store, tenant, dataset_id=dataset.id, config_id=config.id)).job.id


async def write(store: Store, id: str, *numbers: int) -> None:
    """The events of these numbers, which say so."""
    async with store.write() as transaction:
        await transaction.events.append(id, *(("progress", {"number": number}) for number in numbers))


async def end(client: AsyncClient, id: str) -> None:
    response = await client.patch(
        f"/jobs/{id}", json={"status": "completed", "result": {}}, headers={"x-tenant-id": ANN}
    )
    assert response.status_code == 200, response.text


@asynccontextmanager
async def stream(client: AsyncClient, id: str, query: str = "", **headers: str) -> AsyncIterator[Response]:
    async with client.stream("GET", f"/jobs/{id}/events{query}", headers=STREAM | headers) as response:
        yield response


async def events_of(response: Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream; a comment is {"comment": its text}."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value
        elif fields:
            data = json.loads(fields["data"])
            assert fields.keys() == {"id", "event", "data"}
            assert (int(fields["id"]), fields["event"]) == (data["seq"], data["type"])
            yield data
            fields = {}


async def numbers_of(response: Response, *, until: int | None = None) -> list[int]:
    """The numbers of a stream's events, to the end of the stream or to one number."""
    found = []
    async for event in events_of(response):
        if "seq" in event:
            found.append(event["seq"])
            if event["seq"] == until:
                break
    return found


async def test_a_stream_replays_follows_and_ends_with_the_job(store: Store, client: AsyncClient) -> None:
    id = await new_job(store)
    await write(store, id, 2, 3)
    async with stream(client, id) as response:
        reading = asyncio.create_task(numbers_of(response))
        await asyncio.sleep(0.1)
        await write(store, id, 4)
        await write(store, id, 5, 6)
        await end(client, id)
        assert await asyncio.wait_for(reading, 5) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_stream_goes_on_where_it_was_cut_off(store: Store, client: AsyncClient) -> None:
    id = await new_job(store)
    await write(store, id, 2, 3, 4, 5)
    async with stream(client, id, "?after=2") as response:
        assert await numbers_of(response, until=5) == [3, 4, 5]
    async with stream(client, id, "?after=1", **{"last-event-id": "3"}) as response:
        assert await numbers_of(response, until=5) == [4, 5]
    for bad in ("x", "-1", "1.5", "9" * 30, ""):
        response = await client.get(f"/jobs/{id}/events", headers={**STREAM, "last-event-id": bad})
        assert "Last-Event-ID" in field_errors(response)
    checked_error(await client.get(f"/jobs/{UNKNOWN_ID}/events", headers=STREAM), 404)
    checked_error(await client.get(f"/jobs/{id}/events", headers={**STREAM, "x-tenant-id": BOB}), 404)


async def test_a_stream_of_an_ended_job_ends(store: Store, client: AsyncClient) -> None:
    id = await new_job(store)
    await end(client, id)
    async with stream(client, id) as response:
        numbers = await asyncio.wait_for(numbers_of(response), 5)
    assert numbers == [1, 2]
    again = await client.get(f"/jobs/{id}/events", headers={**STREAM, "last-event-id": "2"})
    assert again.status_code == 204  # else a browser would come back for ever


async def test_a_quiet_stream_is_kept_open(store: Store, client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert event_source.HEARTBEAT_SECONDS == 15
    monkeypatch.setattr(event_source, "HEARTBEAT_SECONDS", 0.05)
    id = await new_job(store)
    async with stream(client, id, "?after=1") as response:
        events = events_of(response)
        begun = time.perf_counter()
        assert (await anext(events))["comment"] == "open"
        assert time.perf_counter() - begun < 5
        assert ["comment" in await anext(events) for _ in range(3)] == [True] * 3
        await write(store, id, 2)
        while "comment" in (event := await anext(events)):
            pass
        assert event["seq"] == 2


async def test_a_stream_of_a_deleted_job_ends(store: Store, client: AsyncClient) -> None:
    id = await new_job(store)
    async with stream(client, id) as response:
        reading = asyncio.create_task(numbers_of(response))
        await asyncio.sleep(0.1)
        async with store.write() as transaction:
            await transaction.jobs.remove(ANN, id, check=lambda stored: None)
        assert await asyncio.wait_for(reading, 5) == [1]


async def test_streams_end_with_the_server(server: Served, store: Store, client: AsyncClient) -> None:
    id = await new_job(store)
    async with stream(client, id) as first, stream(client, id) as second:
        readers = [asyncio.create_task(numbers_of(response)) for response in (first, second)]
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(server.stop) < 1.5
        assert await asyncio.wait_for(asyncio.gather(*readers), 5) == [[1], [1]]


async def test_a_reader_that_leaves_frees_its_place(server: Served, store: Store, client: AsyncClient) -> None:
    id = await new_job(store)
    for _ in range(3):
        async with stream(client, id) as response:
            events = events_of(response)
            await anext(events)
            await until(lambda: server.service.event_streams.open_streams == 1)
        await until(lambda: server.service.event_streams.open_streams == 0)
    with socket.create_connection(("127.0.0.1", server.port)) as rude:
        request = f"GET /jobs/{id}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nX-Tenant-Id: ann\r\n\r\n"
        rude.sendall(request.encode())
        rude.recv(1000)
        await until(lambda: server.service.event_streams.open_streams == 1)
    await until(lambda: server.service.event_streams.open_streams == 0)
    assert not server.service.event_streams._topics
    shown = (await client.get("/metrics")).text
    assert re.search(r"^influencerai_event_streams\{.*\} 0.0$", shown, re.MULTILINE)


async def test_a_tenant_has_so_many_streams_at_once(
    server: Served, store: Store, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.service.event_streams, "_per_tenant", 2)
    id, other = await new_job(store), await new_job(store, tenant=BOB)
    async with stream(client, id) as first, stream(client, id) as second:
        assert (first.status_code, second.status_code) == (200, 200)
        await until(lambda: server.service.event_streams.open_streams == 2)
        refusal = await client.get(f"/jobs/{id}/events", headers=STREAM)
        assert "event streams" in checked_error(refusal, 429)["message"]
        async with stream(client, other, **{"x-tenant-id": BOB}) as theirs:
            assert theirs.status_code == 200
    await until(lambda: server.service.event_streams.open_streams == 0)
    async with stream(client, id) as again:
        assert again.status_code == 200


@pytest.mark.slow
async def test_fifty_readers_see_one_gapless_sequence(store: Store, client: AsyncClient) -> None:
    jobs = [await new_job(store, name=f"face {number}") for number in range(10)]
    readers = [jobs[0]] * 25 + jobs[1:] * 3
    last = 42

    async def read(id: str, delay: float) -> list[int]:
        await asyncio.sleep(delay)  # some come while events are written
        async with AsyncClient(base_url=client.base_url, timeout=60) as own, stream(own, id) as response:
            return await numbers_of(response)

    async def work(id: str) -> None:
        for number in range(2, last, 4):
            await write(store, id, *range(number, number + 4))
        await end(client, id)

    reading = [asyncio.create_task(read(id, index % 10 * 0.05)) for index, id in enumerate(readers)]
    await asyncio.gather(*(work(id) for id in jobs))
    for sequence in await asyncio.wait_for(asyncio.gather(*reading), 60):
        assert sequence == list(range(1, len(sequence) + 1))
        assert len(sequence) == last


@pytest.mark.slow
async def test_a_slow_reader_hinders_nobody_and_misses_nothing(
    server: Served, store: Store, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended where it lags too far; what it got has no gap, so that it goes on from there."""
    monkeypatch.setattr(event_streams, "_LONGEST_QUEUE", 50)
    id = await new_job(store)
    text = "x" * 20_000
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**17)
        request = f"GET /jobs/{id}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nX-Tenant-Id: ann\r\n\r\n"
        slow.sendall(request.encode())
        await until(lambda: server.service.event_streams.open_streams == 1)
        for _ in range(50):
            async with store.write() as transaction:
                await transaction.events.append(id, *[("progress", {"text": text})] * 10)
        async with stream(client, id) as response:
            assert len(await asyncio.wait_for(numbers_of(response, until=501), 30)) == 501
        slow.settimeout(20)
        received = b""
        while chunk := await asyncio.to_thread(slow.recv, 2**20):
            received += chunk
            if b"\r\n0\r\n\r\n" in received[-20:]:
                break
    seen = [int(line[4:]) for line in received.split(b"\n") if line.startswith(b"id: ")]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) < 501
    async with stream(client, id, **{"last-event-id": str(seen[-1])}) as response:
        assert (await numbers_of(response, until=501))[0] == seen[-1] + 1


@pytest.mark.slow
async def test_pages_of_events(any_api: Api) -> None:
    job = await any_api.job()
    await write(any_api.service.store, job["id"], *range(2, 12))
    seen: list[int] = []
    while page := (await any_api.get(f"/jobs/{job['id']}/events?after={len(seen)}&take=4")).json():
        assert page["lastSeq"] == 11
        if not page["data"]:
            break
        assert len(page["data"]) <= 4
        seen += [event["seq"] for event in page["data"]]
    assert seen == list(range(1, 12))
    first = (await any_api.get(f"/jobs/{job['id']}/events")).json()["data"][0]
    assert first["type"] == "status"
    assert first["data"] == {"status": "pending"}
    assert first["createdAt"].endswith("Z")


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
