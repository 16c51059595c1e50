"""The log of a job: its events, its figures and its files."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from typing import BinaryIO
from urllib.parse import quote

from influencerai.dataset.thumbnail import thumbnail
from influencerai.domain.job_log import EventQuery, JobArtifact, JobEvent, JobMetric, MetricQuery
from influencerai.errors import DatasetError, NotFoundError, ValidationError
from influencerai.files import beneath
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.jobs import not_found
from influencerai.service.picture_work import PictureWork
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.events import StoredEvent
from influencerai.store.job_rows import StoredArtifact
from influencerai.store.times import to_datetime


class JobLogService:
    """Events, figures and files of one tenant's jobs, per call."""

    def __init__(self, store: Store, settings: Settings, folders: TenantFolders, work: PictureWork) -> None:
        self._store = store
        self._max_pixels = settings.max_image_pixels
        self._folders = folders
        self._work = work

    async def events(self, tenant: str, id: str, query: EventQuery) -> tuple[list[JobEvent], int]:
        """Events after a number, and the number of the job's last one.

        Raises:
            NotFoundError: there is no such job.
        """
        async with self._store.read() as transaction:
            await self._check(transaction, tenant, id)
            found = await transaction.events.after(id, query.after, limit=query.take)
            numbers = await transaction.events.last_numbers([id])
        return [event_of(event) for event in found], numbers[id][0]

    async def metrics(self, tenant: str, id: str, query: MetricQuery) -> list[JobMetric]:
        """The curve of losses and rates, thinned.

        Raises:
            NotFoundError: there is no such job.
        """
        async with self._store.read() as transaction:
            await self._check(transaction, tenant, id)
            figures = await transaction.events.figures(id, points=query.points)
        return [JobMetric(**asdict(item)) for item in figures]

    async def artifacts(self, tenant: str, id: str) -> list[JobArtifact]:
        """The files that the job has published, in the order of training.

        Raises:
            NotFoundError: there is no such job.
        """
        async with self._store.read() as transaction:
            await self._check(transaction, tenant, id)
            found = await transaction.jobs.artifacts(tenant, id)
        return [_artifact(id, file) for file in found]

    async def artifact(self, tenant: str, id: str, name: str) -> tuple[JobArtifact, BinaryIO]:
        """One published file, and the file itself, opened below the tenant's root; the caller closes it.

        Raises:
            NotFoundError: there is no such job, or no such file of it.
        """
        for artifact in await self.artifacts(tenant, id):
            if artifact.name == name:
                with suppress(OSError, ValidationError):  # it is gone, or a link leads out of the root by now
                    root, path = self._folders.below_root(tenant, artifact.path)
                    return artifact, os.fdopen(beneath.open_file(root, path), "rb")
        raise NotFoundError(f"Artifact {name} of job {id} not found")

    async def thumbnail(self, tenant: str, id: str, name: str) -> bytes:
        """A small WebP of a sample that the job has drawn.

        Raises:
            NotFoundError: there is no such job or file, or the file is no picture.
        """
        artifact, file = await self.artifact(tenant, id, name)
        file.close()
        root = self._folders.root(tenant)
        try:
            if artifact.kind != "sample":
                raise DatasetError("it is no picture")
            place = root / artifact.path
            return await self._work.small(
                tenant,
                lambda decoding: thumbnail(place, inside=root, max_pixels=self._max_pixels, decoding=decoding),
            )
        except DatasetError as error:
            raise NotFoundError(f"Artifact {name} of job {id} has no thumbnail: {error.message}") from error

    @staticmethod
    async def _check(transaction: Transaction, tenant: str, id: str) -> None:
        if await transaction.jobs.get(tenant, id) is None:
            raise not_found(id)


def event_of(event: StoredEvent) -> JobEvent:
    """The event as its users see it."""
    return JobEvent.model_validate(asdict(event))


def _artifact(job_id: str, file: StoredArtifact) -> JobArtifact:
    fields = {**asdict(file), "created_at": to_datetime(file.created_at)}
    url = f"/jobs/{job_id}/artifacts/{quote(file.name)}"
    thumbnail_url = f"{url}/thumbnail" if file.kind == "sample" else None
    return JobArtifact.model_validate({**fields, "url": url, "thumbnail": thumbnail_url})
