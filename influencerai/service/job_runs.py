"""Job runs: trying a failed job again from where it stopped, and deleting an ended one with its files."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from influencerai.domain.job import TERMINAL, Job
from influencerai.domain.output_path import RUN_MARKER, output_name, output_path, output_path_of_run
from influencerai.domain.relative_path import OWN_FOLDER, normalized
from influencerai.errors import ConflictError, InfluencerAIError, ValidationError
from influencerai.files import beneath
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.answer import Answer, answer_once
from influencerai.service.jobs import not_found
from influencerai.service.picture_work import PictureWork
from influencerai.service.quotas import QuotaService
from influencerai.service.run_copy import RunCopy
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey
from influencerai.store.ids import new_id
from influencerai.store.job_rows import NewJob, StoredArtifact, StoredJob

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
"""Error numbers of `beneath` for a missing file, a link or a folder."""


class _OutdatedError(Exception):
    """Something of a run was removed after it was copied."""


class JobRunService:
    """Files that jobs left on the disk, for one tenant per call."""

    def __init__(self, store: Store, folders: TenantFolders, work: PictureWork, quotas: QuotaService) -> None:
        self._store = store
        self._folders = folders
        self._work = work
        self._quotas = quotas

    async def retry(self, tenant: str, id: str, *, request: RequestKey | None = None) -> Answer[Job]:
        """A new job that goes on from the last checkpoint of a failed or cancelled one.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job has not ended, or was completed.
            TooManyError: a quota of jobs or GPU-hours is used up for now.
            QuotaError: nothing more may be stored.
        """
        await self._quotas.freshen(tenant)
        while True:  # again where something of the old run was removed meanwhile
            with suppress(_OutdatedError):
                return await self._retry(tenant, id, request)

    async def _retry(self, tenant: str, id: str, request: RequestKey | None) -> Answer[Job]:
        """Files are copied before the transaction, which only looks whether they are all there still.

        Raises:
            _OutdatedError: they are not.
        """
        new_run, is_answered = new_id(), False
        copy = RunCopy(self._folders.root(tenant), source=id, target=new_run)
        async with self._store.read() as transaction:
            if request is not None:
                is_answered = await transaction.idempotency_keys.has(tenant, request)
            if not is_answered:
                _check_failed(await transaction.jobs.stored(tenant, id), id)
        if not is_answered:
            await self._work.small(tenant, lambda decoding: copy.make(decoding.check))
        is_used = False

        async def make(transaction: Transaction) -> Answer[Job]:
            nonlocal is_used
            await self._quotas.check_new_job(transaction, tenant)
            stored = _check_failed(await transaction.jobs.stored(tenant, id), id)
            if is_answered or not copy.is_current():  # or the answer was forgotten just now
                raise _OutdatedError
            dataset_id = stored.snapshot.dataset.id
            dataset = await transaction.datasets.get(tenant, dataset_id)
            new = NewJob(
                id=new_run,
                type=stored.job.type,
                payload=stored.job.payload,
                snapshot=stored.snapshot,
                plan=stored.plan,
                dataset_id=dataset_id if dataset is not None else None,
                config_id=None,
                priority=int(stored.job.payload.get("priority") or 5),
                output_dir=normalized(_output_path(stored)),
                retry_of=id,
                metadata=stored.job.metadata,
            )
            job = (await transaction.jobs.add(tenant, new)).job
            is_used = True
            return Answer(value=job, warnings=() if copy.has_state else ("There is no checkpoint: it starts anew.",))

        try:
            return await answer_once(self._store, tenant, request, Job, make)
        finally:
            if not is_used:
                await self._work.small(tenant, lambda _: copy.remove())

    async def delete(self, tenant: str, id: str) -> None:
        """Delete an ended job with its files. Files go first: where that fails, the job is still there to try again.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job has not ended.
            InfluencerAIError: a file cannot be removed.
        """

        def check(stored: StoredJob) -> None:
            if stored.job.status not in TERMINAL:
                raise ConflictError(f"Job {id} is {stored.job.status}: cancel it before it is deleted")

        async with self._store.read() as transaction:
            stored = await transaction.jobs.stored(tenant, id)
            if stored is None:
                raise not_found(id)
            check(stored)
            files = await transaction.jobs.artifacts(tenant, id)
        await self._work.small(tenant, lambda _: self._remove_files(tenant, stored, files))
        async with self._store.write() as transaction:
            await transaction.jobs.remove(tenant, id, check=check)

    def _remove_files(self, tenant: str, stored: StoredJob, files: list[StoredArtifact]) -> None:
        try:
            for file in files:
                _unlink(*self._folders.below_root(tenant, file.path))
            self._remove_output(tenant, stored)
            with suppress(FileNotFoundError):
                runs = f"{OWN_FOLDER}/runs"
                beneath.remove_tree(self._folders.root(tenant), f"{runs}/{stored.job.id}", ignore_errors=True)
        except (OSError, ValidationError) as error:
            raise InfluencerAIError(
                f"The files of job {stored.job.id} cannot be removed: {error}.", remedy="Mend that and try again."
            ) from error

    def _remove_output(self, tenant: str, stored: StoredJob) -> None:
        """Remove the job's files from its output folder, and the folder if it is empty then."""
        root, folder = self._folders.below_root(tenant, stored.output_dir)
        marker = f"{folder}/{RUN_MARKER}"
        try:
            with os.fdopen(beneath.open_file(root, marker), "rb") as file:
                if file.read() != stored.job.id.encode():
                    return
        except OSError as error:
            if error.errno in _NO_FILE:
                return
            raise
        stem = _planned_name(stored) or output_name(stored.snapshot.config)
        for entry in beneath.entries(root, folder):
            if entry.name.startswith(f"{stem}-") and entry.name.endswith(".safetensors"):
                _unlink(root, f"{folder}/{entry.name}")
        _unlink(root, marker)
        for place in (f"{folder}/samples", folder):
            with suppress(OSError):
                beneath.remove_folder(root, place)


def _output_path(stored: StoredJob) -> str:
    """The output path of the job's run, also of one that an earlier version planned."""
    config, name = stored.snapshot.config, _planned_name(stored)
    return output_path_of_run(config, output_name=name) if name else output_path(config)


def _planned_name(stored: StoredJob) -> str | None:
    """The stem of the files that the job's run writes, as it was planned; None of a job without a plan."""
    name = (stored.plan or {}).get("spec", {}).get("outputName")
    return name if isinstance(name, str) else None


def _check_failed(stored: StoredJob | None, id: str) -> StoredJob:
    if stored is None:
        raise not_found(id)
    if stored.job.status != "failed":
        raise ConflictError(f"Job {id} is {stored.job.status}: only a failed or cancelled job is tried again")
    return stored


def _unlink(root: Path, name: str) -> None:
    """Remove a file below the root, if it is there; an error names its whole path."""
    try:
        beneath.unlink(root, name)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(root / name)) from error
