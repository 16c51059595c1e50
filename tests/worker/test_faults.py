"""Strikes at those who train: whoever dies whenever, the job ends with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.databases import Databases
from tests.worker.workplace import (
    Workplace,
    children,
    in_one_process,
    is_alive,
    on_both,
    on_sqlite,
    strike,
    workplace,
)

pytestmark = [in_one_process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

MANY = "data/datasets/many"
TRIES = 8
"""How often a test aims at a moment of milliseconds."""


@on_both
def test_an_undisturbed_job_ends_with_the_bytes_of_the_backend(place: Workplace) -> None:
    id = place.submit()
    place.wait(id)
    history = place.check_undisturbed(id)
    assert place.outcomes(id) == ["completed"]
    assert history.job.result is not None
    assert [file.name for file in history.artifacts] == history.job.result["checkpoints"]
    assert history.job.result["checkpoints"][-1] == "test-run-final.safetensors"


@pytest.mark.slow
@on_both
def test_a_child_that_is_killed_while_it_trains(place: Workplace) -> None:
    id = place.submit()
    place.wait_for_step(id, 8)
    strike(place.child(id))
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["broken", "completed"]
    assert "(signal 9)" in place.history(id).attempts[0]["error"]


@pytest.mark.slow
@on_both
def test_a_worker_that_is_killed_is_followed_by_another(place: Workplace) -> None:
    id = place.submit()
    place.wait_for_step(id, 8)
    worker = place.holder(id)
    [server] = children(worker)
    child = place.child(id)
    strike(worker)
    place.until(lambda: not is_alive(server) and not is_alive(child), seconds=2)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["lost", "completed"]
    assert place.holder(id) != worker
    assert place.steps(id) == 24


@pytest.mark.campaign
@on_sqlite
def test_a_child_that_is_killed_while_it_encodes(place: Workplace) -> None:
    before = encoded(place)
    id = place.submit(dataset=MANY, count=20, epochs=1)
    place.until(lambda: encoded(place) >= before + 4, id=id, pause=0.001)
    strike(place.child(id))
    assert place.steps(id) == 0
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["broken", "completed"]


@pytest.mark.campaign
@on_sqlite
def test_a_child_that_is_killed_while_it_exports(place: Workplace) -> None:
    def attempt() -> str:
        id = place.submit(epochs=4)
        place.until(lambda: (place.run_dir(id) / "state-00000008.safetensors").exists(), id=id, pause=0.001)
        strike(place.child(id))
        return id

    repeat(place, attempt, until=["broken", "completed"])


@pytest.mark.campaign
@on_sqlite
def test_a_worker_and_its_child_that_are_killed_together(place: Workplace) -> None:
    id = place.submit()
    place.wait_for_step(id, 5)
    child = place.child(id)
    strike(place.holder(id))
    strike(child)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["lost", "completed"]


@pytest.mark.campaign
@on_sqlite
def test_a_fork_server_that_is_killed_takes_the_training_with_it(place: Workplace) -> None:
    id = place.submit()
    place.wait_for_step(id, 5)
    child, [server] = place.child(id), children(place.holder(id))
    strike(server)
    place.until(lambda: not is_alive(child), seconds=5)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["broken", "completed"]


@pytest.mark.slow
@on_both
def test_an_attempt_that_slept_beyond_its_lease_writes_nothing(place: Workplace) -> None:
    id = place.submit()
    place.wait_for_step(id, 6)
    worker, child = place.holder(id), place.child(id)
    pause(place, worker, id)
    strike(child, signal.SIGSTOP)
    try:
        place.wait(id)
        before = place.check_undisturbed(id)
        assert place.outcomes(id) == ["lost", "completed"]
        assert place.holder(id) != worker
    finally:
        strike(worker, signal.SIGCONT)
        strike(child, signal.SIGCONT)
    place.until(lambda: not is_alive(child), seconds=20)
    time.sleep(0.5)
    assert place.check_undisturbed(id) == before
    assert is_alive(worker)


@pytest.mark.campaign
@on_both
def test_a_worker_that_is_killed_when_the_result_lies_there(place: Workplace) -> None:
    def attempt() -> str:
        id = place.submit(epochs=4)
        place.until(lambda: final_file(place, id).exists(), id=id, pause=0.001)
        strike(place.holder(id))
        return id

    repeat(place, attempt, until=["lost", "completed"])


@pytest.mark.slow
@on_both
def test_a_worker_that_is_killed_when_the_last_checkpoint_is_recorded(place: Workplace) -> None:
    """The worker is let run a millisecond at a time, until the row of the final file is there."""

    def attempt() -> str:
        id = place.submit(epochs=4)
        place.until(lambda: final_file(place, id).exists(), id=id, pause=0.001)
        worker = place.holder(id)
        while place.job(id).status == "running":
            strike(worker, signal.SIGSTOP)
            if any(file.name.endswith("-final.safetensors") for file in place.history(id).artifacts):
                break
            strike(worker, signal.SIGCONT)
            time.sleep(0.001)
        strike(worker)
        return id

    repeat(place, attempt, until=["lost", "completed"])


@pytest.mark.campaign
def test_what_says_nothing_is_killed(databases: Databases, tmp_path: Path) -> None:
    """First a training, then a fork server that should start one."""
    url = databases.new("sqlite")
    with workplace(tmp_path, url, stall_seconds=6, broken_attempts=100) as place:
        place.staff(1)
        place.wait(place.submit(epochs=1))  # by now the trainer is imported
        id = place.submit()
        place.wait_for_step(id, 5)
        strike(place.child(id), signal.SIGSTOP)
        place.wait(id)
        place.check_undisturbed(id)
        assert place.outcomes(id) == ["broken", "completed"]
        assert place.history(id).attempts[0]["error"] == "The training was silent for 6 s."

        [server] = children(place.workers[0].pid)
        strike(server, signal.SIGSTOP)
        id = place.submit()
        place.wait_for_attempt(id, 2)
        assert not is_alive(server)
        place.wait(id)
        place.check_undisturbed(id)
        assert {*place.outcomes(id)[:-1]} == {"broken"}, "as often as the import of the trainer takes"
        place.check_idle()
    databases.give_back(url)


@pytest.mark.campaign
def test_a_worker_that_imports_for_longer_than_its_lease_keeps_its_job(alone: Workplace) -> None:
    """A fork server takes seconds to import the trainer; here it is held up for some more."""
    id = alone.submit()
    alone.staff(1)
    alone.wait(id, "running")
    [server] = children(alone.holder(id))
    strike(server, signal.SIGSTOP)
    time.sleep(1.5 * alone.settings.lease_seconds)
    strike(server, signal.SIGCONT)
    alone.wait(id)
    alone.check_undisturbed(id)
    assert alone.outcomes(id) == ["completed"]


@pytest.mark.campaign
@on_both
def test_two_workers_share_the_jobs_of_three_tenants(place: Workplace) -> None:
    limit = place.settings.running_jobs_per_tenant
    tenants = ("ann", "ann", "bob", "bob", "cid", "cid")
    ids = [(tenant, place.submit(tenant=tenant, epochs=2)) for tenant in tenants]
    for tenant, id in ids:
        place.wait(id, tenant=tenant)
    histories = [place.check(id, tenant=tenant) for tenant, id in ids]
    assert [[row["outcome"] for row in history.attempts] for history in histories] == [["completed"]] * 6
    for history in histories:
        [row] = history.attempts
        others = [other for other in histories if other.job.tenant_id == history.job.tenant_id]
        running = [other for other in others if _overlaps(row, other.attempts[0])]
        assert len(running) <= limit


def repeat(place: Workplace, attempt: Callable[[], str], *, until: list[str]) -> None:
    """Strike at new jobs until one has had the attempts that are meant; every one must end undisturbed."""
    for _ in range(TRIES):
        place.staff(2)
        id = attempt()
        place.wait(id)
        place.check_undisturbed(id)
        if place.outcomes(id) == until:
            return
    pytest.fail("no strike has come in time")


def _overlaps(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["started_at"] < other["ended_at"] and other["started_at"] < one["ended_at"])


def encoded(place: Workplace) -> int:
    """Entries of the cache."""
    return sum(1 for _ in place.settings.cache_dir.rglob("*.tensors"))


def final_file(place: Workplace, id: str) -> Path:
    folders = [place.root / "data/loras/test-run", place.root / f"data/loras/test-run-{id}"]
    [folder] = [folder for folder in folders if _is_of(folder, id)] or [folders[1]]
    return folder / "test-run-final.safetensors"


def _is_of(folder: Path, id: str) -> bool:
    with suppress(FileNotFoundError):
        return (folder / ".influencerai-run").read_text() == id
    return False


def pause(place: Workplace, pid: int, id: str) -> None:
    """Stop a worker, but not while it holds a lock, which would hold up everybody else for as long."""
    for _ in range(1000):
        strike(pid, signal.SIGSTOP)
        if not is_locked(place.settings.database_url, id):
            return
        strike(pid, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the worker always holds a lock")


def is_locked(url: str, id: str) -> bool:
    """Whether somebody else is writing to the job, or on SQLite to anything."""
    if url.startswith("sqlite"):
        file = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(file, timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False

    async def look() -> bool:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT id FROM jobs WHERE id = $1 FOR UPDATE NOWAIT", id)
            return False
        except asyncpg.LockNotAvailableError:
            return True
        finally:
            await connection.close()

    return asyncio.run(look())
