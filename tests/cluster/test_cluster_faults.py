"""Strikes at the cluster: whoever dies whenever, the job ends with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from influencerai.demo.characters import MODEL_ID
from tests.cluster.site import Site
from tests.servers import Server, serve
from tests.training_runs import make_config
from tests.worker.test_faults import pause
from tests.worker.workplace import MARK, PATIENCE, PICTURES, TENANT, children, is_alive, strike, write_pictures

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.xdist_group("ray"),
]
on_both = pytest.mark.parametrize("shared_site", ["sqlite", "postgres"], indirect=True)


@pytest.mark.campaign
@on_both
def test_an_undisturbed_job_ends_with_the_bytes_of_the_backend(place: Site) -> None:
    id = place.submit()
    place.wait(id)
    place.check_undisturbed(id)
    [attempt] = place.history(id).attempts
    assert attempt["outcome"] == "completed"
    assert attempt["started_at"] <= attempt["begun_at"] <= attempt["ended_at"]


@pytest.mark.slow
@pytest.mark.parametrize("shared_site", ["sqlite", pytest.param("postgres", marks=pytest.mark.campaign)], indirect=True)
def test_a_dispatcher_that_is_killed_is_followed_by_another(place: Site) -> None:
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    place.workers[0].kill()
    place.workers[0].wait()
    place.staff(1)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["lost", "completed"]
    place.check_idle()


@pytest.mark.campaign
@on_both
def test_a_dispatcher_that_is_asked_to_end_has_its_jobs_saved(place: Site) -> None:
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    left = place.root / ".influencerai/cluster/server-0123.abcd"
    left.touch()
    os.utime(left, (0, 0))
    place.workers[0].terminate()
    assert place.workers[0].wait(60) == 0
    assert not left.exists(), "what a killed dispatcher has left is removed"
    assert place.outcomes(id) == ["released"]
    assert place.job(id).status == "pending"
    place.staff(1)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["released", "completed"]


@pytest.mark.campaign
@on_both
def test_two_dispatchers_start_no_job_twice(place: Site) -> None:
    place.staff(2)
    jobs = [place.submit(epochs=1) for _ in range(6)]
    for id in jobs:
        place.wait(id)
    for id in jobs:
        place.check(id)
        attempts = place.history(id).attempts
        assert [attempt["outcome"] for attempt in attempts].count("completed") == 1
        # A busy machine may lose an attempt's short lease; the next one begins when that has ended.
        assert all(after["started_at"] >= before["ended_at"] for before, after in pairwise(attempts))
    place.workers.pop().terminate()


@pytest.mark.campaign
@on_both
def test_a_training_that_is_killed_begins_again(place: Site) -> None:
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    strike(place.training(id))
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["broken", "completed"]
    place.check_idle()


@pytest.mark.campaign
@on_both
def test_a_cancelled_job_ends_at_its_next_step(place: Site) -> None:
    id = place.submit(epochs=200)
    place.wait_for_step(id, 8)
    place.cancel(id)
    job = place.wait(id)
    assert (job.status, (job.result or {})["cancelled"]) == ("failed", True)
    place.check(id)


@pytest.mark.campaign
def test_the_job_of_a_dead_node_goes_on_on_another(alone: Site) -> None:
    alone.add_node("one", cpus=1)
    alone.staff(1)
    alone.wait_for_nodes("one")
    id = alone.submit(epochs=30)
    alone.wait_for_step(id, 8)
    alone.add_node("two", cpus=1)
    alone.kill_node("one")
    alone.wait(id)
    alone.check_undisturbed(id)
    *lost, last = alone.outcomes(id)
    assert last == "completed"
    assert {*lost} <= {"lost", "released"}  # released where the dead node was chosen once more
    assert len(lost) <= 2  # Ray may take longer to notice than the lease lasts here
    assert alone.where(id)[-1] == "two"
    alone.check_idle()


@pytest.mark.campaign
@on_both
def test_a_supervisor_that_is_killed_takes_the_training_with_it(place: Site) -> None:
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    supervisor, child = place.supervisor(id), place.training(id)
    [server] = children(supervisor)
    strike(supervisor)
    place.until(lambda: not is_alive(server) and not is_alive(child), seconds=5)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["lost", "completed"]
    place.check_idle()


@pytest.mark.campaign
@on_both
@pytest.mark.parametrize("is_whole", [True, False], ids=["with its training", "alone"])
def test_an_attempt_that_slept_beyond_its_lease_changes_nothing(is_whole: bool, place: Site) -> None:
    """Alone, its training goes on for as long as it need not be heard."""
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    supervisor, child = place.supervisor(id), place.training(id)
    pause(place, supervisor, id)
    if is_whole:
        strike(child, signal.SIGSTOP)
    try:
        place.wait(id)
        before = place.history(id)
        *lost, last = place.outcomes(id)
        assert last == "completed"
        assert {*lost} <= {"lost", "released"}  # released where the node that hangs was chosen once more
    finally:
        strike(supervisor, signal.SIGCONT)
        strike(child, signal.SIGCONT)
    place.until(lambda: not is_alive(child), seconds=20)
    time.sleep(0.5)
    assert place.check_undisturbed(id) == before
    place.check_idle()


@pytest.mark.campaign
@pytest.mark.parametrize("shared_site", ["sqlite"], indirect=True)
def test_a_write_that_was_called_off_leaves_nothing_locked(place: Site) -> None:
    """An attempt that is fenced off waits for its turn to write, in a process that goes on to live."""
    id = place.submit(epochs=60)
    place.wait_for_step(id, 8)
    child = place.training(id)
    file = place.settings.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        place.until(lambda: not is_alive(child), seconds=30)
        assert place.job(id).status == "running", "it could not say that it has ended"
        assert place.steps(id) < 120
        time.sleep(1.5)  # the attempt is over
        other.execute("ROLLBACK")
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["lost", "completed"]
    place.check_idle()


@pytest.mark.campaign
def test_a_cluster_that_falls_with_its_head_is_built_again(alone: Site) -> None:
    alone.add_node("one", cpus=1)
    alone.staff(1)
    alone.wait_for_nodes("one")
    id = alone.submit(epochs=30)
    alone.wait_for_step(id, 8)
    child = alone.training(id)
    alone.collapse()
    alone.until(lambda: not is_alive(child), seconds=10)
    assert alone.job(id).status == "running"
    alone.rebuild()
    alone.add_node("two", cpus=1)
    alone.staff(1)
    alone.wait(id)
    alone.check_undisturbed(id)
    assert alone.outcomes(id) == ["lost", "completed"]
    assert alone.where(id) == ["one", "two"]
    alone.check_idle()


@pytest.mark.campaign
@on_both
def test_a_server_that_is_killed_finds_its_jobs_again(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    while place.workers:  # the server is the only dispatcher here
        place.workers[-1].terminate()
        place.workers.pop().wait()
    with serving(place, monkeypatch) as first:
        write_pictures(place.root / PICTURES, count=2)
        id = post(first, epochs=20)
        place.wait_for_step(id, 8)
        kill_server()
    with serving(place, monkeypatch, port=first.port) as second:
        found = second.wait_for_job(id, seconds=PATIENCE, tenant=TENANT)
    assert found["status"] == "completed"
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["lost", "completed"]
    place.check_idle()


@contextmanager
def serving(place: Site, patch: pytest.MonkeyPatch, *, port: int = 0) -> Iterator[Server]:
    """`influencerai serve` on the site's cluster, over its root and database."""
    patch.setenv("RAY_ADDRESS", place.cluster.address)
    patch.setenv(MARK, place.mark)
    same = ("database_url", "lease_seconds", "poll_seconds", "cancel_grace_seconds", "retry_seconds", "device")
    settings: dict[str, Any] = {name: getattr(place.settings, name) for name in same}
    with serve(place.root, runner="ray", ray=True, port=port, **settings) as server:
        yield server


def post(server: Server, **config: Any) -> str:
    """The id of a new job over HTTP."""
    dataset = {"kind": "lora-training", "path": PICTURES}
    document = make_config(MODEL_ID, batchSize=1, **config).to_wire()
    payload = {
        "datasetId": server.ask("POST", "/datasets", dataset, tenant=TENANT).document["id"],
        "loraConfigId": server.ask("POST", "/lora-configs", document, tenant=TENANT).document["id"],
    }
    answer = server.ask("POST", "/jobs", {"type": "lora-training", "payload": payload}, tenant=TENANT)
    id: str = answer.document["id"]
    return id


def kill_server() -> None:
    """End the server that this process has started."""
    [pid] = [pid for pid in children(os.getpid()) if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    strike(pid)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
