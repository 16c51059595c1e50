"""Disconnection: work for a request ends when its sender has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

T = TypeVar("T")


class DisconnectedError(Exception):
    """The sender has closed the connection, so that no answer can reach it."""


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """What `work` returns. Only for requests whose body has been read.

    Raises:
        DisconnectedError: the sender has left, and `work` was cancelled.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_has_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise DisconnectedError
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait((working, leaving))


async def _has_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
