"""The demo's tenants: each registers a character, submits a job and fetches its LoRA, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from influencerai.cli.demo_server import DemoServer
from influencerai.client import AsyncInfluencerAIClient
from influencerai.demo.captions import TRIGGER
from influencerai.demo.spec import demo_config
from influencerai.domain.job import TERMINAL, Job, JobDetail
from influencerai.domain.job_log import JobEvent
from influencerai.errors import ConflictError

OnEvent = Callable[[str, JobEvent], None]
"""Called with a character and what has happened to its job."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A character whose job is completed, and the file that was fetched."""

    character: str
    tenant: str
    job: JobDetail
    lora: Path


def tenant_of(character: str) -> str:
    """The tenant whose character it is."""
    return f"{character}-studio"


def dataset_path(character: str) -> str:
    """Where its pictures lie, relative to the server's root."""
    return f"datasets/{character}"


async def train_all(
    characters: Sequence[str], *, server: DemoServer, out: Path, epochs: int, resume: bool, on_event: OnEvent
) -> list[Trained]:
    """Have the server train every character, each for its own tenant; its pictures lie below the root already.

    Args:
        characters: whose LoRAs.
        server: one that is ready.
        out: each LoRA gets to `<out>/<character>/`.
        epochs: of each training.
        resume: go on with each tenant's last job, whatever has become of it.
        on_event: gets what happens.

    Raises:
        TrainingError: a job failed.
        InfluencerAIError: the server has ended, or refused something.
    """
    ways = (
        _train(name, url=server.url, folder=out / name, epochs=epochs, resume=resume, on_event=on_event)
        for name in characters
    )
    training, watching = asyncio.gather(*ways), asyncio.create_task(server.watch())
    try:
        await asyncio.wait((training, watching), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        return await training
    finally:
        for task in (training, watching):
            task.cancel()
        await asyncio.gather(training, watching, return_exceptions=True)


async def _train(character: str, *, url: str, folder: Path, epochs: int, resume: bool, on_event: OnEvent) -> Trained:
    """The whole way of one tenant, from the pictures to the file."""
    tenant = tenant_of(character)
    async with AsyncInfluencerAIClient(url, tenant_id=tenant) as client:
        dataset = await _dataset(client, dataset_path(character))
        config = await _config(client, character, epochs=epochs)
        job = await _job(client, dataset, config, resume=resume)
        ended = await client.jobs.wait_for_completion(job.id, on_progress=lambda event: on_event(character, event))
        name = PurePosixPath((ended.result or {})["loraPath"]).name
        [lora] = await client.jobs.download(job.id, to=folder, names=[name], replace=True)
    return Trained(character=character, tenant=tenant, job=ended, lora=lora)


async def _dataset(client: AsyncInfluencerAIClient, path: str) -> str:
    """The id of the dataset, which an earlier demo may have registered."""
    known = await _first(aiter(client.datasets.list()), lambda dataset: dataset.path == path)
    return (known or await client.datasets.create(path=path, meta={"triggerWord": TRIGGER})).id


async def _config(client: AsyncInfluencerAIClient, character: str, *, epochs: int) -> str:
    """The id of the configuration, likewise."""
    config = demo_config(name=character, output_path=f"loras/{character}", epochs=epochs)
    known = await _first(aiter(client.lora_configs.list()), lambda found: found.name == character)
    if known is not None:
        return (await client.lora_configs.update(known.id, epochs=epochs)).id
    return (await client.lora_configs.create(config)).id


async def _job(client: AsyncInfluencerAIClient, dataset: str, config: str, *, resume: bool) -> Job:
    """The job to wait for: a new one, which has the server to itself, or where it goes on the last one."""
    async for job in client.jobs.list():
        if resume:
            return await client.jobs.retry(job.id) if job.status == "failed" else job
        if job.status not in TERMINAL:
            with suppress(ConflictError):  # it has ended by itself
                await client.jobs.cancel(job.id)
    return await client.jobs.create(dataset_id=dataset, lora_config_id=config)


async def _first(items: AsyncIterator[T], is_wanted: Callable[[T], bool]) -> T | None:
    async for item in items:
        if is_wanted(item):
            return item
    return None
