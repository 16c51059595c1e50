"""Event source: a job's events as a stream of server-sent events (WHATWG HTML, 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from influencerai.domain.job_log import JobEvent

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


async def encoded(events: AsyncIterator[JobEvent]) -> AsyncIterator[bytes]:
    """The stream's bytes, with a comment where nothing has happened for a while.

    The stream begins with a comment, so that a client sees at once that it is open.
    """
    yield b": open\n\n"
    pending = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_SECONDS)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            yield format_sse_event(data_str=event.model_dump_json(by_alias=True), event=event.type, id=str(event.seq))
            pending = asyncio.ensure_future(anext(events))
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]  # it is a generator
