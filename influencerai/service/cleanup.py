"""Cleanup: what ended jobs and runs have left for longer than it is kept, removed beside running servers.

Nothing of a pending or running job is touched, no dataset, no configuration, and no LoRA file unless that is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from influencerai.errors import InfluencerAIError, ValidationError
from influencerai.files import beneath
from influencerai.files.atomic_file import temporary_beside
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service.run_files import RunFiles, roots_of, runs_of, unused_blobs, unused_tensors
from influencerai.settings import Settings
from influencerai.store import Store, Transaction
from influencerai.store.job_rows import StoredArtifact
from influencerai.store.usage import EndedJob

Kind = Literal["states", "abandoned runs", "local runs", "pictures", "cache", "artifacts"]
_UNOWNED_SECONDS = 3600.0
"""A folder or file without an owner may be a moment old: its owner is written after it."""


@dataclass(frozen=True, kw_only=True)
class CleanupRules:
    """Rules of a cleanup."""

    older_than: timedelta
    tenant: str | None = None
    artifacts: bool = False
    """LoRA files and samples of ended jobs too."""
    dry_run: bool = False


@dataclass(kw_only=True)
class CleanupReport:
    """Objects and bytes that were, or would be, removed, by kind and tenant; and those that could not be."""

    removed: dict[tuple[Kind, str], tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, kind: Kind, tenant: str | None, size: int) -> None:
        """One more thing."""
        count, total = self.removed.get((kind, tenant or "-"), (0, 0))
        self.removed[kind, tenant or "-"] = count + 1, total + size

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.removed.values())


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A file below a root, and the name that it has between its row's deletion and its own."""

    root: Path
    name: str
    aside: str
    size: int


class CleanupService:
    """Cleans up for all tenants or one; several processes may do so at once."""

    def __init__(self, store: Store, settings: Settings, folders: TenantFolders) -> None:
        self._store = store
        self._settings = settings
        self._folders = folders

    async def run(self, rules: CleanupRules) -> CleanupReport:
        """Remove what the rules name.

        Raises:
            StoreError: the database does not answer; what was removed until then is gone.
        """
        report = CleanupReport()
        runs = await asyncio.to_thread(runs_of, self._settings, tenant=rules.tenant)
        ids = [run.job_id for run in runs if run.job_id is not None]
        async with self._store.read() as transaction:
            known = await transaction.usage.ended_jobs(ids)
        if ids and not known:
            report.problems.append(
                f"The database knows none of the {len(ids)} jobs whose runs lie in {self._settings.root}, so they are "
                "kept: name the database of the server with --database-url."
            )
        for run in runs:
            if run.job_id is None:
                if rules.tenant is None or run.tenant == rules.tenant:
                    await self._guarded(report, run.path, partial(self._clean_local, run, rules, report))
            elif (job := known.get(run.job_id)) is not None:
                if rules.tenant in (None, job.tenant_id):
                    await self._clean_job_run(run, job, rules, report)
            elif known and (rules.tenant is None or run.tenant == rules.tenant):
                await self._guarded(report, run.path, partial(self._clean_abandoned, run, rules, report))
        if rules.artifacts:
            await self._clean_artifacts(rules, report)
        await asyncio.to_thread(self._clean_shared, rules, report)
        return report

    async def _clean_job_run(self, run: RunFiles, job: EndedJob, rules: CleanupRules, report: CleanupReport) -> None:
        """States and pictures of a job that has ended: it is not retried after so long."""
        if not job.is_ended or job.ended_seconds < rules.older_than.total_seconds():
            return
        size = await asyncio.to_thread(run.resumable_bytes)
        if not size:
            return
        if not rules.dry_run:
            async with self._store.write() as transaction:
                # Under this lock a retry checks that all that it has linked into a run of its own is still here.
                await transaction.lock_tenant(job.tenant_id)
                if not await self._guarded(report, run.path, run.set_aside):
                    return
            if not await self._guarded(report, run.path, run.discard):
                return
        report.add("states", job.tenant_id, size)

    def _clean_abandoned(self, run: RunFiles, rules: CleanupRules, report: CleanupReport) -> None:
        """The run of a job that was deleted."""
        if run.touched < _before(rules, at_least=_UNOWNED_SECONDS):
            size = run.all_bytes()
            if not rules.dry_run:
                run.remove()
            report.add("abandoned runs", run.tenant, size)

    def _clean_local(self, run: RunFiles, rules: CleanupRules, report: CleanupReport) -> None:
        """A training of the command line or a notebook: what it needs to resume, unless a process trains it now."""
        if not run.is_local or run.touched >= _before(rules):
            return
        size = run.resumable_bytes() if run.is_finished else run.all_bytes()
        if not size:
            return
        if not rules.dry_run:
            with run.locked() as is_ours:
                if not is_ours:
                    return
                if run.is_finished:
                    run.discard()
                else:
                    run.remove()
        report.add("local runs", run.tenant, size)

    async def _clean_artifacts(self, rules: CleanupRules, report: CleanupReport) -> None:
        async with self._store.read() as transaction:
            ended = await transaction.usage.jobs_with_artifacts(tenant=rules.tenant)
        for id, job in ended.items():
            if not job.is_ended or job.ended_seconds < rules.older_than.total_seconds():
                continue
            if rules.dry_run:
                async with self._store.read() as transaction:
                    files = await _unneeded(transaction, job.tenant_id, id)
                found = [await asyncio.to_thread(self._found, job.tenant_id, file.path) for file in files]
            else:
                found = await self._set_artifacts_aside(job.tenant_id, id, report)
                await asyncio.to_thread(_remove_aside, found)
            for file in found:
                report.add("artifacts", job.tenant_id, 0 if file is None else file.size)

    async def _set_artifacts_aside(self, tenant: str, id: str, report: CleanupReport) -> list[_Found | None]:
        """Rename a job's files, and forget them; None for one that is not there. Bytes are removed later."""
        moved: dict[str, _Found | None] = {}
        try:
            async with self._store.write() as transaction:
                await transaction.lock_tenant(tenant)  # no new job or configuration names one of them meanwhile
                for file in await _unneeded(transaction, tenant, id):
                    try:
                        moved[file.name] = await asyncio.to_thread(self._set_aside, tenant, file.path)
                    except OSError as error:
                        report.problems.append(f"{file.path} of tenant {tenant} is not removed: {error.strerror}")
                await transaction.usage.forget_artifacts(id, [*moved])
        except BaseException:
            for found in moved.values():
                if found is not None:
                    with suppress(OSError):
                        beneath.replace(found.root, found.aside, found.name)
            raise
        return [*moved.values()]

    def _set_aside(self, tenant: str, path: str) -> _Found | None:
        found = self._found(tenant, path)
        if found is not None:
            beneath.replace(found.root, found.name, found.aside)
        return found

    def _found(self, tenant: str, path: str) -> _Found | None:
        try:
            root, name = self._folders.below_root(tenant, path)
            status = beneath.status(root, name)
        except (OSError, ValidationError):  # a link leads out of the root by now
            return None
        if status is None:
            return None
        return _Found(root=root, name=name, aside=temporary_beside(name), size=status.st_size)

    def _clean_shared(self, rules: CleanupRules, report: CleanupReport) -> None:
        """Copies of pictures that no run uses, and the cache, which belongs to no tenant."""
        for tenant, root in roots_of(self._settings, tenant=rules.tenant):
            if rules.tenant is None or tenant == rules.tenant:
                unused = unused_blobs(root, before=_before(rules, at_least=_UNOWNED_SECONDS))
                _unlink("pictures", tenant, root, unused, rules, report)
        if rules.tenant is None:
            cache = self._settings.cache_dir
            _unlink("cache", None, cache, unused_tensors(cache, before=_before(rules)), rules, report)

    @staticmethod
    async def _guarded(report: CleanupReport, path: Path, work: Callable[[], None]) -> bool:
        """Do it in a thread; what the file system refuses is noted, and the rest goes on."""
        try:
            await asyncio.to_thread(work)
        except (OSError, InfluencerAIError) as error:
            report.problems.append(f"{path} is not cleaned: {error}")
            return False
        return True


def _before(rules: CleanupRules, *, at_least: float = 0.0) -> float:
    return time.time() - max(rules.older_than.total_seconds(), at_least)


async def _unneeded(transaction: Transaction, tenant: str, id: str) -> list[StoredArtifact]:
    """The job's files that no dataset, configuration or active job names."""
    needed = await transaction.usage.named_files(tenant)
    return [file for file in await transaction.jobs.artifacts(tenant, id) if not needed.has(file.path)]


def _remove_aside(files: Iterable[_Found | None]) -> None:
    for file in files:
        if file is not None:
            with suppress(OSError):
                beneath.unlink(file.root, file.aside)


def _unlink(
    kind: Kind, tenant: str | None, root: Path, names: Iterable[str], rules: CleanupRules, report: CleanupReport
) -> None:
    for name in names:
        with suppress(OSError):
            found = beneath.status(root, name)
            if found is None:
                continue
            if not rules.dry_run:
                beneath.unlink(root, name)
            report.add(kind, tenant, found.st_size)
