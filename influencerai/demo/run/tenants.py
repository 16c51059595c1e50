"""The demo's tenants: each registers a character, submits a job and downloads its LoRA, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from influencerai.client import AsyncInfluencerAIClient
from influencerai.demo.captions import TRIGGER
from influencerai.demo.run.server import DemoServer
from influencerai.demo.run.view import OnEvent
from influencerai.demo.spec import demo_config
from influencerai.domain.job import TERMINAL, Job, JobDetail
from influencerai.errors import ConflictError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A character whose job is completed, and the downloaded file."""

    character: str
    tenant: str
    job: JobDetail
    lora: Path


def tenant_of(character: str) -> str:
    """The tenant that owns the character."""
    return f"{character}-studio"


def dataset_path(character: str) -> str:
    """The folder of its images, relative to the server's root."""
    return f"datasets/{character}"


async def train_all(
    characters: Sequence[str], *, server: DemoServer, out: Path, epochs: int, resume: bool, on_event: OnEvent
) -> list[Trained]:
    """Let the server train every character, each for its own tenant; the images are below its root already.

    Args:
        characters: to train.
        server: one that is ready.
        out: each LoRA is downloaded to `<out>/<character>/`.
        epochs: of each training.
        resume: continue each tenant's last job, whatever its status.
        on_event: gets each job's events.

    Raises:
        TrainingError: a job failed.
        InfluencerAIError: the server has exited, or refused a request.
    """
    trainings = (
        _train(name, url=server.url, folder=out / name, epochs=epochs, resume=resume, on_event=on_event)
        for name in characters
    )
    training, watching = asyncio.gather(*trainings), asyncio.create_task(server.watch())
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
    """Everything one tenant does, from the images to the LoRA file."""
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
    """The job to wait for: the last one with `resume`, else a new one, after cancelling those that are active."""
    async for job in client.jobs.list():
        if resume:
            return await client.jobs.retry(job.id) if job.status == "failed" else job
        if job.status not in TERMINAL:
            with suppress(ConflictError):  # it has ended meanwhile
                await client.jobs.cancel(job.id)
    return await client.jobs.create(dataset_id=dataset, lora_config_id=config)


async def _first(items: AsyncIterator[T], is_wanted: Callable[[T], bool]) -> T | None:
    async for item in items:
        if is_wanted(item):
            return item
    return None
