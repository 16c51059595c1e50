"""A database that does not answer: requests are told to come back, and do well when they do."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from influencerai.settings import Settings
from tests.databases import start_server, upgrade
from tests.serve.running import Api, checked_error, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a server's user may enter, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="db"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def check_outage(api: Api) -> None:
    for method, path, body in (
        ("GET", "/datasets", None),
        ("GET", "/jobs/x", None),
        ("POST", "/lora-configs", {"name": "x", "modelName": "y"}),
    ):
        answer = await api.send(method, path, json=body)
        refusal = checked_error(answer, 503)
        assert refusal["message"].startswith("The database cannot be used")
        assert refusal["remedy"]
        assert int(answer.headers["retry-after"]) >= 1
        assert "secret-password" not in answer.text
        assert refusal["message"] == "The database cannot be used."
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    ready = await api.get("/readyz")
    assert ready.status_code == 503
    checks = ready.json()["checks"]
    assert ready.json()["status"] == "not ready"
    assert (checks["database"]["status"], checks["disk"]["status"]) == ("failed", "ok")
    assert checks["database"]["detail"].startswith("The database cannot be used. Check")
    checked_error(await api.get("/metrics"), 503)


@pytest.mark.slow
async def test_postgres_that_is_stopped_for_a_while(tmp_path: Path, place: Path) -> None:
    server = await asyncio.to_thread(start_server, place / "postgres")
    url = server.get_uri()
    await asyncio.to_thread(upgrade, url)
    try:
        async with running(Settings(root=tmp_path, database_url=url)) as api:
            made = await api.dataset()
            await asyncio.to_thread(server.cleanup)
            await check_outage(api)
            server = await asyncio.to_thread(start_server, place / "postgres")
            deadline = time.monotonic() + 20
            while (await api.get("/readyz")).status_code != 200:
                assert time.monotonic() < deadline
            assert (await api.get("/datasets")).json()[0]["id"] == made["id"]
    finally:
        await asyncio.to_thread(server.cleanup)


@pytest.mark.slow
async def test_sqlite_whose_folder_is_away_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    root = tmp_path / "root"
    root.mkdir()
    async with running(Settings(root=root, database_url=f"sqlite:///{folder / 'data.db'}")) as api:
        made = await api.dataset()
        await api.service.store.database.close()  # no connection that is still open helps
        folder.rename(tmp_path / "away")
        await check_outage(api)
        (tmp_path / "away").rename(folder)
        assert (await api.get("/datasets")).json()[0]["id"] == made["id"]
        await asyncio.sleep(1.1)  # for so long an answer lasts
        assert (await api.get("/readyz")).status_code == 200
