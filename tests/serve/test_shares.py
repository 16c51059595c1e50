"""Shares: one tenant's pictures neither hold up the others nor go on when nobody waits for them."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from PIL import Image

from influencerai.dataset import inspect_dataset
from influencerai.service import dataset_inspections as inspections_module
from influencerai.settings import Settings
from tests.serve.running import Api, running
from tests.serve.sockets import Served, served

pytestmark = pytest.mark.anyio
ANN = {"x-tenant-id": "ann"}
FLAT = (2600, 2600)
"""Beyond the pictures that the budget leaves uncounted; about 0.1 s to decode."""


@cache
def _flat_picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", FLAT).save(buffer, "PNG")
    return buffer.getvalue()


def flat_picture(number: int) -> bytes:
    """A picture that no other number gives: what follows its end does not count."""
    return _flat_picture() + bytes([number])


class Inspections:
    """Counts the real inspections, and holds back those of a folder called `me` while it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inspect = inspect_dataset
        self.begun = 0
        self.ended = 0
        self.is_open = threading.Event()
        self.is_open.set()

        def counted(folder: Path, **options: Any) -> Any:
            self.begun += 1
            try:
                while folder.resolve().name == "me" and not self.is_open.wait(0.01):
                    options["decoding"].check()
                return inspect(folder, **options)
            finally:
                self.ended += 1

        monkeypatch.setattr(inspections_module, "inspect_dataset", counted)


@pytest.fixture
def inspections(monkeypatch: pytest.MonkeyPatch) -> Inspections:
    return Inspections(monkeypatch)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_requests_for_one_report_share_a_look(api: Api, inspections: Inspections) -> None:
    api.pictures()
    id = (await api.dataset())["id"]
    before = inspections.begun
    inspections.is_open.clear()
    asked = [asyncio.create_task(api.get(f"/datasets/{id}/report?refresh=true")) for _ in range(20)]
    await until(lambda: inspections.begun > before)
    await asyncio.sleep(1.3)  # until all of them have begun, one in a twentieth of a second
    inspections.is_open.set()
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert inspections.begun - before <= 2


async def test_a_report_asked_for_after_a_change_shows_it(api: Api, inspections: Inspections) -> None:
    folder = api.pictures(count=1)
    id = (await api.dataset())["id"]
    inspections.is_open.clear()
    first = asyncio.create_task(api.get(f"/datasets/{id}/report?refresh=true"))
    await until(lambda: inspections.begun == 2)
    (folder / "9.png").write_bytes(flat_picture(1))
    second = asyncio.create_task(api.get(f"/datasets/{id}/report?refresh=true"))
    await asyncio.sleep(0.1)
    inspections.is_open.set()
    assert (await first).status_code == 200
    assert [image["path"] for image in (await second).json()["images"]] == ["0.png", "9.png"]


async def test_a_tenant_in_the_midst_of_looks_leaves_the_others_alone(api: Api, inspections: Inspections) -> None:
    api.pictures()
    ids = [(await api.dataset(path="data/datasets/me"))["id"] for _ in range(6)]
    inspections.is_open.clear()
    asked = [asyncio.create_task(api.get(f"/datasets/{id}/report?refresh=true")) for id in ids]
    before = inspections.begun
    await until(lambda: inspections.begun == before + 2)
    assert (await api.get("/readyz")).status_code == 200
    api.pictures("data/bob")
    assert (await api.dataset(tenant="bob", path="data/bob"))["status"] == "ready"
    thumbnail = await api.get(f"/datasets/{ids[0]}/images/0.png/thumbnail")
    assert thumbnail.status_code == 200
    inspections.is_open.set()
    await asyncio.gather(*asked)


@pytest.fixture
def server(tmp_path: Path, sqlite_url: str) -> Iterator[Served]:
    with served(Settings(root=tmp_path, database_url=sqlite_url)) as running_server:
        yield running_server


@pytest.mark.slow
async def test_a_look_ends_when_its_sender_leaves(server: Served, tmp_path: Path, inspections: Inspections) -> None:
    folder = tmp_path / "me"
    folder.mkdir()
    (folder / "0.png").write_bytes(flat_picture(0))
    async with AsyncClient(base_url=server.url, headers=ANN, timeout=20) as client:
        id = (await client.post("/datasets", json={"kind": "lora-training", "path": "me"})).json()["id"]
        inspections.is_open.clear()
        before = inspections.begun
        asked = [asyncio.create_task(client.get(f"/datasets/{id}/report?refresh=true", timeout=20)) for _ in range(5)]
        await until(lambda: inspections.begun == before + 1)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: inspections.ended == inspections.begun)
        assert inspections.begun == before + 1
        assert (await client.get("/readyz")).status_code == 200
        inspections.is_open.set()
        assert (await client.get(f"/datasets/{id}/report?refresh=true")).status_code == 200
    assert server.stop() < 5


async def test_an_upload_whose_sender_leaves_changes_nothing(server: Served, tmp_path: Path) -> None:
    files = [("files", (f"{number}.png", flat_picture(number))) for number in range(12)]
    async with AsyncClient(base_url=server.url, headers=ANN, timeout=20) as client:
        id = (await client.post("/datasets", json={"kind": "lora-training", "path": "data"})).json()["id"]
        sending = asyncio.create_task(client.post(f"/datasets/{id}/images", files=files))
        await until(lambda: (tmp_path / "data").exists())
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await until(lambda: not (tmp_path / "data").exists())


async def test_uploads_have_a_budget_of_pixels(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(root=tmp_path, database_url=sqlite_url, max_upload_megapixels=10)
    async with running(settings) as api:
        id = (await api.dataset())["id"]
        files = [("files", (f"{number}.png", flat_picture(number))) for number in range(2)]
        refused = await api.send("POST", f"/datasets/{id}/images", files=files)
        assert refused.json()["errors"]["fieldErrors"] == {
            "files": ["The images have more than 10,000,000 pixels together. Send fewer at a time."]
        }
        assert (await api.send("POST", f"/datasets/{id}/images", files=files[:1])).status_code == 200
