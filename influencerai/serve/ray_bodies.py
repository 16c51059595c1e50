"""Ray bodies: Ray Serve takes as much of a body into memory as is read of it, and a little more.

Serve's proxy and replica each queue a body as fast as it comes, all of it where the app does not read. These are
privates of Ray 2.60, to be checked at upgrades.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from ray.serve._private import http_util

_QUEUE: Any = http_util.MessageQueue
_RECEIVE: Any = http_util.ASGIReceiveProxy
"""Both without types."""
_PROXY_BYTES, _PROXY_MESSAGES = 4 * 2**20, 64
"""The second for senders of small packets, each of which may become a message."""
_REPLICA_MESSAGES = 32
"""Of 64 to 256 KiB."""
_PAUSE_SECONDS = 0.01


def bound_proxy() -> None:
    """Let the proxy of this process read a body only while little of it waits for the replica."""
    put = _QUEUE.__call__

    async def put_in_turn(queue: Any, message: Any) -> None:
        await put(queue, message)
        while not queue._closed and _is_full(queue._message_queue):
            await asyncio.sleep(_PAUSE_SECONDS)

    _QUEUE.__call__ = put_in_turn


def bound_replica() -> None:
    """Let the replica of this process fetch a body only while little of it waits for the app."""
    fetch = _RECEIVE.fetch_until_disconnect

    async def fetch_in_turn(proxy: Any) -> None:
        receive = proxy._receive_asgi_messages

        async def receive_in_turn(metadata: Any) -> Any:
            while proxy.queue.qsize() > _REPLICA_MESSAGES:
                await asyncio.sleep(_PAUSE_SECONDS)
            return await receive(metadata)

        proxy._receive_asgi_messages = receive_in_turn
        await fetch(proxy)

    _RECEIVE.fetch_until_disconnect = fetch_in_turn


def _is_full(messages: Collection[Any]) -> bool:
    return len(messages) > _PROXY_MESSAGES or sum(len(message.get("body", b"")) for message in messages) > _PROXY_BYTES
