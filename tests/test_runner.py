"""InlineRunner: workers that end are followed by others, and none is left when it stops."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from influencerai.runner import InlineRunner
from influencerai.settings import Settings
from influencerai.store import Store
from tests.databases import Databases


@pytest.fixture
def settings(databases: Databases, tmp_path: Path) -> Iterator[Settings]:
    url = databases.new("sqlite")
    yield Settings(root=tmp_path, database_url=url, workers=2, threads=1, lease_seconds=2, cancel_grace_seconds=1)
    databases.give_back(url)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_followed_by_another_and_stop_ends_all(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        store = Store(settings.database_url)
        runner = InlineRunner(settings)
        await runner.start()

        async def greeted(count: int) -> bool:
            async with store.read() as transaction:
                return len(await transaction.workers.seen(within_seconds=60)) >= count

        try:
            await until(lambda: greeted(2))
            before = {place: process.pid for place, process in runner.processes.items()}
            os.kill(before[1], signal.SIGKILL)
            await until(lambda: greeted(3))
            after = {place: process.pid for place, process in runner.processes.items()}
            assert after[0] == before[0]
            assert after[1] != before[1]
        finally:
            living = list(runner.processes.values())
            await runner.stop()
            await store.database.close()
        assert [process.returncode for process in living] == [0, 0]
        assert runner.processes == {}

    asyncio.run(asyncio.wait_for(run(), 120))
    assert "A worker has ended (exit code -9)" in caplog.text


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_tried_again_ever_later(
    settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no database")
    bad = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'file'}", "workers": 1})

    async def run() -> None:
        runner = InlineRunner(bad)
        await runner.start()
        try:
            await until(lambda: said(2))
        finally:
            await runner.stop()

    async def said(count: int) -> bool:
        return caplog.text.count("A worker has ended") >= count

    with caplog.at_level(logging.ERROR):
        asyncio.run(asyncio.wait_for(run(), 120))
    assert "exit code 1); another one starts in 2 s" in caplog.text
    assert "another one starts in 5 s" in caplog.text
    errors = capfd.readouterr().err
    assert "The database cannot be used: file is not a database." in errors
    assert "Traceback" not in errors


def test_a_process_that_cannot_be_made_is_tried_again(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    async def run() -> None:
        runner = InlineRunner(settings)
        await runner.start()

        async def said() -> bool:
            return "No worker can be started" in caplog.text

        await until(said)
        await runner.stop()

    asyncio.run(asyncio.wait_for(run(), 60))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.05)
