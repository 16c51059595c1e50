"""Remains: what a killed attempt left of a completed job goes, and nothing of any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from influencerai.files.tenant_folders import TenantFolders
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.worker import cleanup as remains
from influencerai.worker.cleanup import RunCleanup
from tests.store.rows import ANN, BOB, add_job, cancel, claimed, finish

pytestmark = pytest.mark.anyio


def run_of(folders: TenantFolders, tenant: str, id: str) -> Path:
    """A run's folder as an attempt leaves it that is killed before it can clean up."""
    run_dir = folders.run_dir(tenant, id)
    (run_dir / "dataset").mkdir(parents=True)
    (run_dir / "dataset" / "1.png").write_bytes(id.encode())
    (run_dir / "state-00000004.safetensors").write_bytes(b"weights")
    (run_dir / "history.jsonl").write_text("{}\n")
    return run_dir


def left(run_dir: Path) -> list[str]:
    return sorted(path.name for path in run_dir.iterdir())


async def test_states_and_images_of_completed_jobs_go_and_those_of_others_stay(store: Store, tmp_path: Path) -> None:
    settings = Settings(root=tmp_path)
    folders = TenantFolders(settings)
    jobs = [(tenant, await add_job(store, tenant, output_dir=tenant)) for tenant in (ANN, BOB)]
    for _ in jobs:
        await finish(store, await claimed(store))
    running, cancelled = [await add_job(store, output_dir=str(number)) for number in range(2)]
    await claimed(store)
    await cancel(store, cancelled.job.id)
    done = [run_of(folders, tenant, job.job.id) for tenant, job in jobs]
    others = [run_of(folders, ANN, job.job.id) for job in (running, cancelled)]
    whole = left(others[0])
    await RunCleanup(store, settings).remove()
    assert [left(folder) for folder in done] == [["history.jsonl"]] * 2
    assert [left(folder) for folder in others] == [whole] * 2


async def test_one_folder_that_cannot_be_cleaned_keeps_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remains, "_PAUSE_SECONDS", 0)
    settings = Settings(root=tmp_path)
    folders = TenantFolders(settings)
    jobs = [await add_job(store, output_dir=str(number)) for number in range(2)]
    for _ in jobs:
        await finish(store, await claimed(store))
    bad, good = [run_of(folders, ANN, job.job.id) for job in jobs]
    state = bad / "state-00000004.safetensors"
    state.unlink()
    state.mkdir()
    cleaner = RunCleanup(store, settings)
    await cleaner.remove()
    assert (state.is_dir(), left(good)) == (True, ["history.jsonl"])
    state.rmdir()
    await cleaner.remove()
    assert left(bad) == ["history.jsonl"]
