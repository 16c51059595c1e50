"""Usage: measurements of the disk end with the service, and what many ask for is not measured each time."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from influencerai.service import Service
from influencerai.settings import Settings
from tests.store.rows import ANN, add_dataset

pytestmark = pytest.mark.anyio


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    opened = Service(Settings(root=tmp_path, database_url=database_url, auth="production"), needs_worker=False)
    yield opened
    await opened.close()


async def test_a_measurement_ends_with_the_service(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_dataset(service.store, path="data")
    for number in range(300):
        (service.folders.root(ANN) / "data" / str(number)).mkdir(parents=True)
    scan, begun = os.scandir, threading.Event()

    def scan_a_slow_disk(*arguments: Any) -> Any:
        begun.set()
        time.sleep(0.1)
        return scan(*arguments)

    monkeypatch.setattr(os, "scandir", scan_a_slow_disk)
    asking = asyncio.create_task(service.usage.of(ANN, max_age=0))
    assert await asyncio.to_thread(begun.wait, 10)
    async with asyncio.timeout(5):
        await service.close()
        await asyncio.wait({asking})
    assert asking.cancelled()


async def test_the_shared_cache_is_not_walked_for_every_question(service: Service) -> None:
    async def shown(*, refresh: bool = False) -> int:
        return (await service.usage.of_all(refresh=refresh)).cache_bytes

    cache = service.settings.cache_dir
    cache.mkdir(parents=True)
    (cache / "a").write_bytes(b"1234")
    assert await shown() == 4
    (cache / "b").write_bytes(b"56")
    assert await shown() == 4
    assert await shown(refresh=True) == 6
