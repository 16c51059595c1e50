"""Jobs: submit, inspect and follow them, and download their files."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from influencerai.client.answers import document_of, failed_job_kind
from influencerai.client.blocking import Blocking, blocking, iterating, listing
from influencerai.client.connection import Connection, segment
from influencerai.client.download import download
from influencerai.client.events import EventFeed
from influencerai.client.listing import AsyncListing
from influencerai.domain.job import Job, JobDetail, JobSeries, JobStatus
from influencerai.domain.job_log import JobArtifact, JobEvent, JobMetric
from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.page import SortOrder
from influencerai.errors import NotFoundError, StoppedError

if TYPE_CHECKING:
    from influencerai.progress.view import LiveView

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 600.0


class AsyncJobs:
    """The tenant's jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        *,
        dataset_id: str,
        lora_config_id: str | None = None,
        lora_config: LoraConfig | Mapping[str, Any] | None = None,
        priority: int | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a training.

        Args:
            dataset_id: what to train on.
            lora_config_id: how to train; by default by the tenant's default configuration.
            lora_config: how to train, instead of a stored configuration; nothing is stored.
            priority: among the tenant's own jobs, 1 to 10; 10 goes first.
            metadata: texts of your own by name, such as an order number, by which `list` finds the job.
            idempotency_key: by which the server knows a repetition; by default one for this call.

        Raises:
            NotFoundError: dataset or configuration are not there.
            TooManyError: too many of the tenant's jobs are active, also after the waits that the server asked for.
        """
        body = _draft(dataset_id, lora_config_id, lora_config, priority)
        if metadata:
            body["metadata"] = dict(metadata)
        return await self._connection.post(Job, "/jobs", body, key=idempotency_key)

    async def dry_run(
        self,
        *,
        dataset_id: str,
        lora_config_id: str | None = None,
        lora_config: LoraConfig | Mapping[str, Any] | None = None,
        priority: int | None = None,
    ) -> dict[str, Any]:
        """What such a job would do, need and fail on, as JSON; nothing is stored."""
        body = _draft(dataset_id, lora_config_id, lora_config, priority)
        response = await self._connection.request(
            "POST", "/jobs", params={"dryRun": True}, body=body, is_repeatable=True
        )
        found: dict[str, Any] = document_of(response)
        return found

    async def get(self, id: str) -> JobDetail:
        """One job with what it trains and every attempt at it."""
        return await self._connection.get(JobDetail, _path(id))

    def list(
        self,
        *,
        status: JobStatus | Literal["cancelled"] | None = None,
        type: str | None = None,
        dataset_id: str | None = None,
        lora_config_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        sort_by: Literal["createdAt", "updatedAt"] | None = None,
        sort_order: SortOrder | None = None,
        page_size: int = 100,
    ) -> AsyncListing[Job]:
        """All jobs that pass each filter, the newest first unless sorted otherwise."""
        return self._connection.list(
            Job,
            "/jobs",
            page_size=page_size,
            status=status,
            type=type,
            datasetId=dataset_id,
            loraConfigId=lora_config_id,
            metadata=[f"{key}:{value}" for key, value in (metadata or {}).items()] or None,
            sortBy=sort_by,
            sortOrder=sort_order,
        )

    async def update(
        self,
        id: str,
        *,
        status: JobStatus | None = None,
        result: dict[str, Any] | None = None,
        cost_tok: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job:
        """Report on a job as its worker; to `running` it takes a pending job, and each report keeps it.

        `metadata` alone is no report: the tenant replaces the job's metadata by it.

        Raises:
            ConflictError: the job has ended, or another worker has it.
        """
        given = {"status": status, "result": result, "costTok": cost_tok, "metadata": metadata}
        body = {name: value for name, value in given.items() if value is not None}
        return await self._connection.patch(Job, _path(id), body)

    async def cancel(self, id: str) -> Job:
        """End a job that has not ended; a running one ends at its next step.

        Raises:
            ConflictError: it has ended by itself.
        """
        return await self._connection.post(Job, f"{_path(id)}/cancel", is_repeatable=True)

    async def retry(self, id: str, *, idempotency_key: str | None = None) -> Job:
        """A new job that continues from the last training state of a failed or cancelled one.

        Raises:
            ConflictError: the job has not ended, or was completed.
        """
        return await self._connection.post(Job, f"{_path(id)}/retry", key=idempotency_key)

    async def delete(self, id: str) -> None:
        """Delete an ended job with its files.

        Raises:
            ConflictError: it has not ended.
        """
        await self._connection.delete(_path(id))

    async def series(
        self, *, window: Literal["day", "week", "month"] = "week", buckets: int | None = None
    ) -> JobSeries:
        """How many jobs ended how, per day, week or month."""
        return await self._connection.get(JobSeries, "/jobs/series", window=window, buckets=buckets)

    async def events(self, id: str, *, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """What has happened to a job until now, from the event after number `after` on."""
        path = f"{_path(id)}/events"
        while found := await self._connection.items(JobEvent, path, after=after, take=1000):
            for event in found:
                yield event
            after = found[-1].seq

    async def follow(
        self,
        id: str,
        *,
        after: int = 0,
        poll_interval: float = POLL_SECONDS,
        patience: float = PATIENCE_SECONDS,
        timeout: float | None = None,
    ) -> AsyncGenerator[JobEvent, None]:
        """What has happened to a job and what happens to it, as it happens, until it has ended.

        A cut stream, a lost network and a server that is started again cost nothing: each event comes once.

        Args:
            id: of the job.
            after: events of a higher number only.
            poll_interval: seconds between two questions where there is no stream.
            patience: seconds without any answer after which the server is given up.
            timeout: seconds in all.

        Raises:
            UnreachableError: the server did not come back.
            TimedOutError: the job had not ended in time.
        """
        feed = EventFeed(
            self._connection, id, after=after, poll_interval=poll_interval, patience=patience, timeout=timeout
        )
        async with aclosing(aiter(feed)) as events:
            async for event in events:
                yield event

    async def wait_for_completion(
        self,
        id: str,
        *,
        on_progress: Callable[[JobEvent], object] | None = None,
        poll_interval: float = POLL_SECONDS,
        timeout: float | None = None,
        patience: float = PATIENCE_SECONDS,
        after: int = 0,
        show_progress: bool = False,
    ) -> JobDetail:
        """The job when it is completed.

        Args:
            id: of the job.
            on_progress: called with each event, in order and once; with the awaited client it may be a coroutine.
            poll_interval: seconds between two questions where there is no stream of events.
            timeout: seconds to wait in all; by default as long as it takes.
            patience: seconds without any answer after which the server is given up.
            after: events of a higher number only.
            show_progress: show a loss plot in a notebook, a bar in a terminal, and lines elsewhere.

        Raises:
            TrainingError: the job failed; the message is its error, `failure` its result.
            StoppedError: it was cancelled.
            TimedOutError: it had not ended in time; it keeps running.
            UnreachableError: the server did not come back.
        """
        feed = EventFeed(
            self._connection, id, after=after, poll_interval=poll_interval, patience=patience, timeout=timeout
        )
        with _live_view(await feed.title()) if show_progress else nullcontext() as view:
            async with aclosing(aiter(feed)) as events:
                async for event in events:
                    if view is not None:
                        view(event)
                    if on_progress is not None:
                        said = on_progress(event)
                        if inspect.isawaitable(said):
                            await said
        job = await feed.job()
        raise_if_failed(job)
        return job

    async def metrics(self, id: str, *, points: int | None = None) -> tuple[JobMetric, ...]:
        """Loss, learning rate and speed over the steps, thinned to about `points`."""
        return await self._connection.items(JobMetric, f"{_path(id)}/metrics", points=points)

    async def artifacts(self, id: str) -> tuple[JobArtifact, ...]:
        """The files that the job has published, in the order of training."""
        return await self._connection.items(JobArtifact, f"{_path(id)}/artifacts")

    async def thumbnail(self, id: str, name: str) -> bytes:
        """A small WebP of a sample that the job has drawn."""
        return (await self._connection.request("GET", f"{_path(id)}/artifacts/{segment(name)}/thumbnail")).content

    async def download(
        self,
        id: str,
        *,
        to: str | Path,
        names: Collection[str] | None = None,
        kind: Literal["lora", "sample"] | None = None,
        replace: bool = False,
    ) -> tuple[Path, ...]:
        """Fetch the job's files into a folder, which is made; returns where they lie.

        Each is compared with its hash before it gets its name. An interrupted download continues where it stopped, in
        this call or the next. A file that is there already is not fetched again.

        Args:
            id: of the job.
            to: the folder; nothing is written elsewhere, whatever names the server gives.
            names: only these files.
            kind: only files of this kind.
            replace: replace files of the same name that are there with other bytes.

        Raises:
            NotFoundError: the job has no file of one of the names.
            ConflictError: another file is there under a name, and not to be replaced.
        """
        found = await self.artifacts(id)
        if names is not None and (missing := sorted(set(names) - {item.name for item in found})):
            raise NotFoundError(f"Job {id} has no file {', '.join(missing)}")
        chosen = [item for item in found if kind in (None, item.kind) and (names is None or item.name in names)]
        return await download(self._connection, id, chosen, Path(to), replace=replace)


class Jobs(Blocking[AsyncJobs]):
    """The tenant's jobs."""

    create = blocking(AsyncJobs.create)
    dry_run = blocking(AsyncJobs.dry_run)
    get = blocking(AsyncJobs.get)
    list = listing(AsyncJobs.list)
    update = blocking(AsyncJobs.update)
    cancel = blocking(AsyncJobs.cancel)
    retry = blocking(AsyncJobs.retry)
    delete = blocking(AsyncJobs.delete)
    series = blocking(AsyncJobs.series)
    events = iterating(AsyncJobs.events)
    follow = iterating(AsyncJobs.follow)
    wait_for_completion = blocking(AsyncJobs.wait_for_completion)
    metrics = blocking(AsyncJobs.metrics)
    artifacts = blocking(AsyncJobs.artifacts)
    thumbnail = blocking(AsyncJobs.thumbnail)
    download = blocking(AsyncJobs.download)


def raise_if_failed(job: Job) -> None:
    """Raise the error that ended the job, if one did.

    Raises:
        StoppedError: it was cancelled.
        TrainingError: it failed; the error is also of the class of its code, such as ModelError or DatasetError.
    """
    if job.status != "failed":
        return
    result = job.result or {}
    kind = StoppedError if result.get("cancelled") else failed_job_kind(str(result.get("code")))
    remedy = text if isinstance(text := result.get("remedy"), str) and text else None
    message = str(result.get("error") or "The job failed.")
    error = kind(message.removesuffix(f" {remedy}"), remedy=remedy)
    error.failure = result
    raise error


def _live_view(title: str) -> LiveView:
    from influencerai.progress.view import LiveView  # and with it rich, which a client that shows nothing does not load

    return LiveView(title)


def _path(id: str) -> str:
    return f"/jobs/{segment(id)}"


def _draft(
    dataset_id: str,
    lora_config_id: str | None,
    lora_config: LoraConfig | Mapping[str, Any] | None,
    priority: int | None,
) -> dict[str, Any]:
    given: dict[str, Any] = {"datasetId": dataset_id, "loraConfigId": lora_config_id, "priority": priority}
    if isinstance(lora_config, LoraConfig):
        given["loraConfig"] = lora_config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    elif lora_config is not None:
        given["loraConfig"] = LoraConfig.by_wire_name(lora_config)
    return {"type": "lora-training", "payload": {name: value for name, value in given.items() if value is not None}}
