"""Decoding: the server decodes each picture once, whoever needs its facts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from influencerai.dataset import decoding
from influencerai.dataset.picture_facts import picture_facts
from influencerai.domain.dataset import DatasetDraft
from influencerai.domain.job import JobDraft
from influencerai.service import Service
from influencerai.settings import Settings
from tests.store.rows import ANN

pytestmark = pytest.mark.anyio


def picture(red: int) -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (128, 128), (red, 0, 0)).save(file, "PNG")
    file.seek(0)
    return file


async def test_a_picture_is_decoded_once_by_upload_inspections_and_pre_flight(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def counted(data: bytes, *, max_pixels: int) -> Any:
        decoded.append(data)
        return picture_facts(data, max_pixels=max_pixels)

    monkeypatch.setattr(decoding, "picture_facts", counted)
    service = Service(Settings(root=tmp_path, database_url=database_url), needs_worker=False)
    draft = DatasetDraft.parse({"kind": "lora-training", "path": "data/me"})
    dataset = (await service.datasets.create(ANN, draft)).value
    for files, count in ((("1", "2", "3"), 3), (("3", "4"), 4)):
        named = [(f"{name}.png", picture(int(name))) for name in files]
        _, uploaded = await service.dataset_images.upload(ANN, dataset.id, named, captions={})
        assert (uploaded.status, len(decoded)) == ("ready", count)
    report = await service.datasets.report(ANN, dataset.id, refresh=True)
    config = {"name": "me", "modelName": "influencerai/tiny-avatars", "resolution": 128}
    payload = {"datasetId": dataset.id, "loraConfig": config}
    await service.pre_flights.check(ANN, JobDraft.parse({"type": "lora-training", "payload": payload}))
    assert (report.usable_count, len(decoded)) == (4, 4)
    await service.close()
