"""What tests of clients need on the server: pictures, configurations, jobs, and files of a job."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import anyio

from influencerai.client import InfluencerAIClient
from influencerai.domain.job import Job
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.pending_jobs import ClaimRules
from influencerai.store.queue import PublishedFile
from tests.serve.running import picture

T = TypeVar("T")
PICTURES = "data/datasets/me"


def write_pictures(folder: Path, *, count: int = 3) -> Path:
    """A folder of small pictures with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture(number))
        (folder / f"{number}.txt").write_text(f"ohwx, scene {number}")
    return folder


def submit(client: InfluencerAIClient, *, name: str = "Portrait", model: str = "sd15") -> Job:
    """A new job on a dataset and a configuration of its own."""
    dataset = client.datasets.create(path=PICTURES)
    config = client.lora_configs.create(name=name, model_name=model)
    return client.jobs.create(dataset_id=dataset.id, lora_config_id=config.id)


def write(settings: Settings, change: Callable[[Transaction], Awaitable[T]]) -> T:
    """Change the server's database as a worker of another process does."""

    async def run() -> T:
        store = Store(settings.database_url)
        try:
            async with store.write() as transaction:
                return await change(transaction)
        finally:
            await store.database.close()

    return anyio.run(run)


def publish(settings: Settings, files: Mapping[str, bytes], *, names: Mapping[str, str] | None = None) -> None:
    """Take the oldest waiting job and publish these files, by their paths below the root; `names` are what is told."""
    published = []
    for path, data in files.items():
        place = settings.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        name = (names or {}).get(path, place.name)
        kind = "sample" if path.endswith("png") else "lora"
        digest = hashlib.sha256(data).hexdigest()
        published.append(
            PublishedFile(name=name, kind=kind, path=path, size=len(data), sha256=digest, step=1, epoch=1)  # type: ignore[arg-type]
        )

    async def change(transaction: Transaction) -> None:
        rules = ClaimRules(seconds=600, running_per_tenant=100, dataset_wait_seconds=0)
        claimed = await transaction.queue.claim(node="here", rules=rules)
        assert claimed is not None
        await transaction.queue.record(claimed[0], seconds=600, files=published)

    write(settings, change)
