"""Ray bodies: of a body that nobody reads, Ray Serve holds a few megabytes in its proxy and its replica."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from ray.serve._private.http_util import ASGIReceiveProxy, MessageQueue

from influencerai.serve.ray_bodies import bound_proxy, bound_replica

pytestmark = pytest.mark.anyio
CHUNK = {"type": "http.request", "body": bytes(2**16), "more_body": True}
END = {"type": "http.disconnect"}
SIZE = 2**24


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MessageQueue, "__call__", MessageQueue.__call__)  # which is put back at the end
    monkeypatch.setattr(ASGIReceiveProxy, "fetch_until_disconnect", ASGIReceiveProxy.fetch_until_disconnect)
    bound_proxy()
    bound_replica()


async def test_the_proxy_waits_for_the_replica() -> None:
    make: Any = MessageQueue  # without types
    queue, sent = make(), 0

    async def send() -> None:
        nonlocal sent
        for _ in range(SIZE // 2**16):
            await queue(CHUNK)
            sent += 2**16
        queue.close()

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.05)
    assert 0 < sent < SIZE / 2
    received = 0
    while received < SIZE:
        await queue.wait_for_message()
        received += sum(len(message["body"]) for message in queue.get_messages_nowait())
        await asyncio.sleep(0)
    await sending
    assert received == SIZE


async def test_the_proxy_waits_for_the_replica_also_with_many_small_messages() -> None:
    make: Any = MessageQueue  # without types
    queue, sent = make(), 0

    async def send() -> None:
        nonlocal sent
        for _ in range(1000):
            await queue({**CHUNK, "body": b"x"})
            sent += 1

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.05)
    assert 0 < sent < 100
    queue.get_messages_nowait()
    await asyncio.sleep(0.05)
    assert 100 < sent < 200
    queue.close()
    with pytest.raises(RuntimeError, match="closed"):
        await sending


async def test_the_replica_waits_for_the_app() -> None:
    asked = 0

    async def messages(_: Any) -> bytes:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return pickle.dumps([CHUNK] if asked <= SIZE // 2**16 else [END])

    make: Any = ASGIReceiveProxy  # without types
    receive = make({"type": "http"}, None, messages)
    fetching = asyncio.create_task(receive.fetch_until_disconnect())
    await asyncio.sleep(0.05)
    assert 0 < asked < SIZE // 2**16 // 2
    received = 0
    while (message := await receive())["type"] == "http.request":
        received += len(message["body"])
    await fetching
    assert received == SIZE
