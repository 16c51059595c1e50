"""Job runs: trying a failed job again from where it stopped, and deleting an ended one with its files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from pathlib import Path

from influencerai import file_system
from influencerai.artifacts import RUN_MARKER
from influencerai.domain import LoraConfig
from influencerai.domain.job import TERMINAL, Job
from influencerai.domain.output_path import output_name, output_path, output_path_of_run
from influencerai.domain.relative_path import normalized
from influencerai.errors import ConflictError, InfluencerAIError, ValidationError
from influencerai.imageset import beneath
from influencerai.service.answer import Answer, answer_once
from influencerai.service.jobs import not_found
from influencerai.service.quotas import QuotaService
from influencerai.store import Store, Transaction
from influencerai.store.idempotency import RequestKey
from influencerai.store.jobs import NewJob, StoredArtifact, StoredJob
from influencerai.tenant_folders import TenantFolders

_APPENDED = "history.jsonl"
"""The one file of a run that grows: it is copied, where the others, written once, are linked."""

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
"""What `beneath` says where there is no file, or a link or a folder."""


class JobRunService:
    """What a job left on the disk, for one tenant per call."""

    def __init__(self, store: Store, folders: TenantFolders, quotas: QuotaService) -> None:
        self._store = store
        self._folders = folders
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

        async def make(transaction: Transaction) -> Answer[Job]:
            await self._quotas.check_new_job(transaction, tenant)
            stored = await transaction.jobs.stored(tenant, id)
            if stored is None:
                raise not_found(id)
            if stored.job.status != "failed":
                raise ConflictError(f"Job {id} is {stored.job.status}: only a failed or cancelled job is tried again")
            dataset_id = str(stored.snapshot["dataset"]["id"])
            dataset = await transaction.datasets.get(tenant, dataset_id)
            new = NewJob(
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
            run_dir = self._folders.run_dir(tenant, new.id)
            has_state = await asyncio.to_thread(copy_run, self._folders.run_dir(tenant, id), run_dir)
            try:
                job = (await transaction.jobs.add(tenant, new)).job
            except BaseException:
                await asyncio.to_thread(shutil.rmtree, run_dir, True)
                raise
            return Answer(value=job, warnings=() if has_state else ("There is no checkpoint: it starts anew.",))

        return await answer_once(self._store, tenant, request, Job, make)

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
        await asyncio.to_thread(self._remove_files, tenant, stored, files)
        async with self._store.write() as transaction:
            await transaction.jobs.remove(tenant, id, check=check)

    def _remove_files(self, tenant: str, stored: StoredJob, files: list[StoredArtifact]) -> None:
        try:
            for file in files:
                _unlink(*self._folders.below_root(tenant, file.path))
            self._remove_output(tenant, stored)
            shutil.rmtree(self._folders.run_dir(tenant, stored.job.id), ignore_errors=True)
        except (OSError, ValidationError) as error:
            raise InfluencerAIError(
                f"The files of job {stored.job.id} cannot be removed: {error}.", remedy="Mend that and try again."
            ) from error

    def _remove_output(self, tenant: str, stored: StoredJob) -> None:
        """What the job wrote into its folder, if that is its own; and the folder, if nothing else is in it."""
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
        stem = _planned_name(stored) or output_name(LoraConfig.restore(stored.snapshot["config"]))
        for entry in beneath.entries(root, folder):
            if entry.name.startswith(f"{stem}-") and entry.name.endswith(".safetensors"):
                _unlink(root, f"{folder}/{entry.name}")
        _unlink(root, marker)
        for place in (f"{folder}/samples", folder):
            with contextlib.suppress(OSError):
                beneath.remove_folder(root, place)


def _output_path(stored: StoredJob) -> str:
    """The output path of the job's run, also of one that an earlier version planned."""
    config, name = LoraConfig.restore(stored.snapshot["config"]), _planned_name(stored)
    return output_path_of_run(config, output_name=name) if name else output_path(config)


def _planned_name(stored: StoredJob) -> str | None:
    """The stem of the files that the job's run writes, as it was planned; None of a job without a plan."""
    name = (stored.plan or {}).get("spec", {}).get("outputName")
    return name if isinstance(name, str) else None


def _unlink(root: Path, name: str) -> None:
    """Remove a file below the root, if it is there; an error names its whole path."""
    try:
        beneath.unlink(root, name)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(root / name)) from error


def copy_run(source: Path, target: Path) -> bool:
    """Give a new run the states and images of another; whether there was a state.

    Raises:
        InfluencerAIError: a file cannot be linked.
    """
    has_state = False
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.glob("state-*.safetensors")):
            file_system.link_or_copy(file, target / file.name)
            has_state = True
        if (history := source / _APPENDED).is_file():
            shutil.copyfile(history, target / _APPENDED)
        for image in sorted(path for path in (source / "dataset").rglob("*") if path.is_file()):
            place = target / image.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            file_system.link_or_copy(image, place)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise InfluencerAIError(f"The checkpoint of {source.name} cannot be taken over: {error.strerror}.") from error
    return has_state
