"""Cleanup: what ended jobs and runs have left goes, and nothing that a job, dataset or configuration needs."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from influencerai.dataset.snapshot import take_snapshot
from influencerai.domain.job import Job
from influencerai.domain.output_path import RUN_MARKER
from influencerai.errors import InfluencerAIError
from influencerai.files.tenant_folders import TenantFolders
from influencerai.service import Service, maintenance
from influencerai.service import cleanup as cleanup_module
from influencerai.service.cleanup import CleanupReport, CleanupRules, CleanupService
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.queue import PublishedFile
from influencerai.worker.cleanup import RunCleanup, set_aside
from tests.store.rows import ANN, BOB, add_config, add_dataset, add_job, cancel, claimed, finish, job_snapshot

pytestmark = pytest.mark.anyio
PICTURE, STATE = b"picture" * 10, b"weights" * 100
LONG_AGO = time.time() - 100 * 86400
NOW = timedelta(0)


@pytest.fixture(params=["development", "production"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return Settings(root=tmp_path, auth=request.param)


@pytest.fixture
def folders(settings: Settings) -> TenantFolders:
    return TenantFolders(settings)


@pytest.fixture
def cleanup(store: Store, settings: Settings, folders: TenantFolders) -> CleanupService:
    return CleanupService(store, settings, folders)


def write_run(folders: TenantFolders, tenant: str, id: str, *, picture: bytes = PICTURE) -> Path:
    """A run's folder as a failed or a waiting job has it: a state, a linked picture and the log."""
    run, sha = folders.run_dir(tenant, id), hashlib.sha256(picture).hexdigest()
    blob = folders.blobs_dir(tenant) / sha[:2] / sha
    (run / "dataset").mkdir(parents=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        blob.write_bytes(picture)
    os.link(blob, run / "dataset" / "1.png")
    (run / "state-00000004.safetensors").write_bytes(STATE)
    (run / "history.jsonl").write_text("{}\n")
    return run


def age(*paths: Path) -> None:
    for path in paths:
        for item in (*path.rglob("*"), path):
            os.utime(item, (LONG_AGO, LONG_AGO))


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def removed(report: CleanupReport) -> dict[str, tuple[int, int]]:
    assert not report.problems
    return {kind: found for (kind, _), found in report.removed.items()}


async def run_both(cleanup: CleanupService, **rules: Any) -> dict[str, tuple[int, int]]:
    """What a dry run says and the run does, which is the same."""
    said = removed(await cleanup.run(CleanupRules(**rules, dry_run=True)))
    done = removed(await cleanup.run(CleanupRules(**rules)))
    assert said == done
    assert removed(await cleanup.run(CleanupRules(**rules))) == {}
    return done


async def test_states_of_ended_jobs_go_and_those_of_active_ones_stay(
    store: Store, cleanup: CleanupService, folders: TenantFolders
) -> None:
    ended, running, waiting = [await add_job(store, output_dir=str(number)) for number in range(3)]
    await cancel(store, ended.job.id)
    taken = await claimed(store)
    runs = {job.job.id: write_run(folders, ANN, job.job.id) for job in (ended, running, waiting)}
    shared, own = write_run(folders, ANN, "x"), b"only of the ended job"
    assert taken
    (runs[ended.job.id] / "dataset" / "2.png").write_bytes(own)
    age(*runs.values(), shared)
    before = {id: files_of(run) for id, run in runs.items()}
    assert removed(await cleanup.run(CleanupRules(older_than=timedelta(hours=1)))) == {}

    found = await run_both(cleanup, older_than=NOW)
    assert found == {"states": (1, len(STATE) + len(own))}  # the shared picture is of others too
    assert files_of(runs[ended.job.id]) == {"history.jsonl"}
    for job in (running, waiting):
        assert files_of(runs[job.job.id]) == before[job.job.id]


async def test_runs_of_deleted_jobs_go_whole_unless_they_are_new(
    store: Store, cleanup: CleanupService, folders: TenantFolders
) -> None:
    kept, old, new = [await add_job(store, output_dir=str(number)) for number in range(3)]
    runs = [write_run(folders, ANN, job.job.id, picture=job.job.id.encode()) for job in (kept, old, new)]
    age(runs[0], runs[1])
    for job in (old, new):
        await cancel(store, job.job.id)
        async with store.write() as transaction:
            await transaction.jobs.remove(ANN, job.job.id, check=lambda stored: None)
    found = await run_both(cleanup, older_than=NOW)
    assert found["abandoned runs"] == (1, len(STATE) + 3 + len(old.job.id))
    assert [run.exists() for run in runs] == [True, False, True]


async def test_the_runs_of_another_database_are_kept(
    store: Store, cleanup: CleanupService, folders: TenantFolders
) -> None:
    run = write_run(folders, ANN, "019a0000-0000-7000-8000-000000000000")
    age(run)
    report = await cleanup.run(CleanupRules(older_than=NOW))
    assert "knows none of the 1 jobs" in report.problems[0]
    assert report.removed == {}
    assert run.exists()


async def test_trainings_of_the_command_line(cleanup: CleanupService, settings: Settings) -> None:
    runs = settings.root / ".influencerai" / "runs"
    for name in ("unfinished", "finished", "trained-now", "fresh", "no-run"):
        (runs / name).mkdir(parents=True)
        (runs / name / "state-00000001.safetensors").write_bytes(STATE)
        if name != "no-run":
            (runs / name / "spec.json").write_text("{}")
    (runs / "finished" / "result.json").write_text("{}")
    age(*(runs / name for name in ("unfinished", "finished", "trained-now", "no-run")))
    with (runs / "trained-now" / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(runs / "trained-now" / "lock", (LONG_AGO, LONG_AGO))
        os.utime(runs / "trained-now", (LONG_AGO, LONG_AGO))
        await cleanup.run(CleanupRules(older_than=timedelta(days=90)))
    assert not (runs / "unfinished").exists()
    assert files_of(runs / "finished") == {"spec.json", "result.json", "lock"}
    for name in ("trained-now", "fresh", "no-run"):
        assert (runs / name / "state-00000001.safetensors").exists()


async def test_pictures_that_no_run_uses_and_cached_tensors(
    cleanup: CleanupService, settings: Settings, folders: TenantFolders
) -> None:
    blobs = folders.blobs_dir(ANN) / "ab"
    tensors = settings.cache_dir / "cd"
    for folder in (blobs, tensors):
        folder.mkdir(parents=True)
    (old_blob, new_blob, linked), (old, new) = (
        [blobs / name for name in ("old", "new", "linked")], [tensors / f"{name}.tensors" for name in ("old", "new")]
    )  # fmt: skip
    for file in (old_blob, new_blob, linked, old, new):
        file.write_bytes(b"12345")
    os.link(linked, settings.root / "link")
    age(old_blob, linked, old)
    assert await run_both(cleanup, older_than=timedelta(days=90), tenant=BOB) == {}
    found = await run_both(cleanup, older_than=timedelta(days=90))
    assert found == {"pictures": (1, 5), "cache": (1, 5)}
    assert [file.exists() for file in (old_blob, new_blob, linked, old, new)] == [False, True, True, False, True]


async def test_lora_files_go_only_when_asked_and_never_those_that_are_needed(
    store: Store, cleanup: CleanupService, folders: TenantFolders
) -> None:
    root = folders.root(ANN)
    names = ("plain", "configured", "pictures")
    for name in names:
        await add_job(store, output_dir=f"data/loras/{name}")
        lease = await claimed(store)
        (root / f"data/loras/{name}").mkdir(parents=True)
        path = f"data/loras/{name}/{name}.safetensors"
        (root / path).write_bytes(b"lora")
        file = PublishedFile(name=f"{name}.safetensors", kind="lora", path=path, size=4, sha256="0", step=1, epoch=1)
        async with store.write() as transaction:
            await transaction.queue.record(lease, seconds=60, files=[file])
        await finish(store, lease)
    await add_config(store, name="next", meta={"note": "./data/loras/configured/configured.safetensors"})
    await add_dataset(store, path="data/loras/pictures")
    assert "artifacts" not in await run_both(cleanup, older_than=NOW)
    assert (await run_both(cleanup, older_than=NOW, artifacts=True))["artifacts"] == (1, 4)
    left = {path.stem for path in root.rglob("*.safetensors")}
    assert left == {"configured", "pictures"}


@pytest.mark.parametrize("by", ["deletion", "cleanup"])
async def test_a_folder_exchanged_for_a_link_leads_to_nobody_elses_files(
    store: Store, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    service = Service(Settings(root=tmp_path / "root", database_url=database_url), needs_worker=False)
    job = await add_job(store, output_dir="data/loras/face")
    lease = await claimed(store)
    own, foreign = tmp_path / "root/data/loras/face", tmp_path / "foreign"
    for folder in (own, foreign):
        folder.mkdir(parents=True)
        for name, data in (("face.safetensors", "lora"), ("face-2.safetensors", "x"), (RUN_MARKER, job.job.id)):
            (folder / name).write_text(data)
    path = "data/loras/face/face.safetensors"
    file = PublishedFile(name="face.safetensors", kind="lora", path=path, size=4, sha256="0", step=1, epoch=1)
    async with store.write() as transaction:
        await transaction.queue.record(lease, seconds=60, files=[file])
    await finish(store, lease)
    resolve = TenantFolders.resolve

    def exchanged_after(folders: TenantFolders, *arguments: Any, **options: Any) -> Path:
        if (moved := own.with_name("elsewhere")).exists():
            own.unlink()
            moved.rename(own)
        found = resolve(folders, *arguments, **options)
        own.rename(moved)
        own.symlink_to(foreign)
        return found

    monkeypatch.setattr(TenantFolders, "resolve", exchanged_after)
    if by == "deletion":
        with pytest.raises(InfluencerAIError, match="face"):
            await service.job_runs.delete(ANN, job.job.id)
    else:
        await service.cleanup.run(CleanupRules(older_than=NOW, artifacts=True))
    assert {found.name for found in foreign.iterdir()} == {"face.safetensors", "face-2.safetensors", RUN_MARKER}
    await service.store.database.close()


@pytest.mark.parametrize("linked", [".influencerai", ".influencerai/runs", ".influencerai/blobs"])
@pytest.mark.parametrize("by", ["cleanup", "deletion", "remains"])
async def test_links_in_place_of_the_servers_own_folders_lead_to_no_deletion(
    store: Store, database_url: str, tmp_path: Path, by: str, linked: str
) -> None:
    service = Service(Settings(root=tmp_path / "root", database_url=database_url), needs_worker=False)
    job = await add_job(store)
    await finish(store, await claimed(store), ending="completed" if by == "remains" else "failed")
    foreign = TenantFolders(Settings(root=tmp_path / "foreign"))
    write_run(foreign, ANN, job.job.id)
    write_run(service.folders, ANN, job.job.id)
    own, before = tmp_path / "root" / linked, files_of(tmp_path / "foreign")
    shutil.rmtree(own)
    own.symlink_to(tmp_path / "foreign" / linked)
    age(tmp_path / "foreign")
    match by:
        case "cleanup":
            await service.cleanup.run(CleanupRules(older_than=NOW, artifacts=True))
        case "deletion":
            with suppress(InfluencerAIError):
                await service.job_runs.delete(ANN, job.job.id)
        case _:
            await RunCleanup(store, service.settings).remove()
    assert files_of(tmp_path / "foreign") == before
    await service.close()


async def test_a_cached_folder_that_is_a_link_leads_to_no_deletion(
    cleanup: CleanupService, settings: Settings, tmp_path: Path
) -> None:
    foreign = tmp_path / "elsewhere" / "a.tensors"
    foreign.parent.mkdir()
    foreign.write_bytes(b"1")
    settings.cache_dir.mkdir(parents=True)
    (settings.cache_dir / "ab").symlink_to(foreign.parent)
    age(foreign)
    await cleanup.run(CleanupRules(older_than=NOW))
    assert foreign.exists()


async def test_a_retry_that_races_the_cleanup_has_all_states_or_none(tmp_path: Path, database_url: str) -> None:
    service = Service(Settings(root=tmp_path, database_url=database_url), needs_worker=False)
    outcomes = set()
    for number in range(8):
        snapshot = job_snapshot(name=str(number))
        stored = await add_job(service.store, output_dir=f"data/loras/{number}", snapshot=snapshot)
        await cancel(service.store, stored.job.id)
        run = write_run(service.folders, ANN, stored.job.id)
        for count in range(20):
            (run / f"state-{count:08}.safetensors").write_bytes(STATE)

        async def retry(id: str) -> tuple[Job, tuple[str, ...]]:
            answer = await service.job_runs.retry(ANN, id)
            return answer.value, answer.warnings

        (made, warnings), _ = await asyncio.gather(
            retry(stored.job.id), service.cleanup.run(CleanupRules(older_than=NOW))
        )
        states = len(list(service.folders.run_dir(ANN, made.id).glob("state-*")))
        assert states == (0 if warnings else 20)
        outcomes.add(states)
        await cancel(service.store, made.id)
    assert outcomes <= {0, 20}
    await service.store.database.close()


@pytest.mark.parametrize("work", ["states", "artifacts", "retry"])
async def test_others_write_while_files_are_copied_or_removed(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    service = Service(Settings(root=tmp_path, database_url=database_url), needs_worker=False)
    root, path = service.folders.root(ANN), "data/loras/face/face.safetensors"
    ended = await add_job(service.store, output_dir="data/loras/face")
    lease = await claimed(service.store)
    (root / path).parent.mkdir(parents=True)
    (root / path).write_bytes(b"lora")
    file = PublishedFile(name="face.safetensors", kind="lora", path=path, size=4, sha256="0", step=1, epoch=1)
    async with service.store.write() as transaction:
        await transaction.queue.record(lease, seconds=60, files=[file])
        await transaction.queue.finish(lease, ending="failed", result={"error": "x"})
    run = write_run(service.folders, ANN, ended.job.id)
    begun, go = threading.Event(), threading.Event()

    def slow(call: Any) -> Any:
        def wait(*arguments: Any, **options: Any) -> Any:
            begun.set()
            assert go.wait(20)
            return call(*arguments, **options)

        return wait

    for module, name in ((hashlib, "file_digest"), (os, "link"), (os, "unlink"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, slow(getattr(module, name)))
    working: asyncio.Task[Any] = asyncio.create_task(
        service.job_runs.retry(ANN, ended.job.id)
        if work == "retry"
        else service.cleanup.run(CleanupRules(older_than=NOW, artifacts=work == "artifacts"))
    )
    try:
        assert await asyncio.to_thread(begun.wait, 10)
        async with asyncio.timeout(5), service.store.write() as transaction:
            await transaction.lock_tenant(ANN)
    finally:
        go.set()
        done = await working
    if work == "retry":
        assert not done.warnings
        assert files_of(service.folders.run_dir(ANN, done.value.id)) == files_of(run)
    else:
        assert removed(done)["states"][1] == len(STATE) + len(PICTURE)
        assert files_of(run) == {"history.jsonl"}
        assert not files_of(service.folders.blobs_dir(ANN))
        assert (root / path).exists() == (work == "states")
        assert files_of(root / "data") == ({path.removeprefix("data/")} if work == "states" else set())
    await service.close()


async def test_what_a_killed_cleanup_has_set_aside_goes_with_the_next_one(
    store: Store, cleanup: CleanupService, folders: TenantFolders
) -> None:
    job = await add_job(store)
    await cancel(store, job.job.id)
    run = write_run(folders, ANN, job.job.id)
    set_aside(folders.root(ANN), job.job.id)
    assert not list(run.glob("state-*"))
    assert (await run_both(cleanup, older_than=NOW))["states"][1] == len(STATE) + len(PICTURE)
    assert [item.name for item in run.iterdir()] == ["history.jsonl"]


async def test_a_snapshot_that_races_the_cleanup_is_whole(
    store: Store, cleanup: CleanupService, folders: TenantFolders, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    samples = []
    for number in range(30):
        data = f"picture {number}".encode()
        (source / f"{number}.png").write_bytes(data)
        sha = hashlib.sha256(data).hexdigest()
        samples.append(SimpleNamespace(path=f"{number}.png", sha256=sha))
        blob = folders.blobs_dir(ANN) / sha[:2] / sha  # of a job of long ago
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        age(blob)
    job = await add_job(store)
    await claimed(store)
    run = folders.run_dir(ANN, job.job.id)
    spec: Any = SimpleNamespace(samples=samples)
    blobs = folders.blobs_dir(ANN)
    await asyncio.gather(
        asyncio.to_thread(take_snapshot, spec, source, run_dir=run, blobs_dir=blobs),
        *(cleanup.run(CleanupRules(older_than=NOW)) for _ in range(3)),
    )
    assert len(files_of(run / "dataset")) == 30


async def test_lost_jobs_return_while_the_daily_cleanup_walks_the_disk(
    store: Store, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, begun, done = await add_job(store), threading.Event(), threading.Event()

    def walk_a_slow_disk(*_: Any, **__: Any) -> list[Any]:
        begun.set()
        done.wait(20)
        return []

    monkeypatch.setattr(cleanup_module, "runs_of", walk_a_slow_disk)
    monkeypatch.setattr(maintenance, "_SECONDS", 0.05)
    service = Service(Settings(root=tmp_path, database_url=database_url, retention_days=30), needs_worker=False)
    await service.open()
    try:
        await asyncio.to_thread(begun.wait, 10)
        await claimed(store, seconds=0.01)
        async with asyncio.timeout(5):
            while (await service.jobs.get(ANN, job.job.id)).status == "running":
                await asyncio.sleep(0.05)
    finally:
        done.set()
        await service.close()


@pytest.mark.parametrize("days", [None, 30])
async def test_a_server_cleans_up_daily_where_a_setting_says_so(
    store: Store, database_url: str, tmp_path: Path, days: float | None
) -> None:
    service = Service(Settings(root=tmp_path, database_url=database_url, retention_days=days), needs_worker=False)
    tensor = service.settings.cache_dir / "ab" / "cd.tensors"
    tensor.parent.mkdir(parents=True)
    tensor.write_bytes(b"1")
    age(tensor)
    await service.open()
    deadline = time.monotonic() + 20
    while days and tensor.exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert tensor.exists() == (days is None)
    await service.close()
