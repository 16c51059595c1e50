"""Strikes at the cluster: whoever dies whenever, the job ends with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import sys

import pytest

from tests.cluster.site import Site
from tests.worker.workplace import strike

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
on_both = pytest.mark.parametrize(
    "shared_site", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True
)


@on_both
def test_an_undisturbed_job_ends_with_the_bytes_of_the_backend(place: Site) -> None:
    id = place.submit()
    place.wait(id)
    place.check_undisturbed(id)
    [attempt] = place.history(id).attempts
    assert attempt["outcome"] == "completed"
    assert attempt["started_at"] <= attempt["begun_at"] <= attempt["ended_at"]


@on_both
def test_a_dispatcher_that_is_killed_is_followed_by_another(place: Site) -> None:
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    place.workers[0].kill()
    place.workers[0].wait()
    place.staff(1)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["lost", "completed"]


@on_both
def test_a_dispatcher_that_is_asked_to_end_has_its_jobs_saved(place: Site) -> None:
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    place.workers[0].terminate()
    assert place.workers[0].wait(60) == 0
    assert place.outcomes(id) == ["released"]
    assert place.job(id).status == "pending"
    place.staff(1)
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["released", "completed"]


@on_both
def test_two_dispatchers_start_no_job_twice(place: Site) -> None:
    place.staff(2)
    jobs = [place.submit(epochs=1) for _ in range(6)]
    for id in jobs:
        place.wait(id)
    for id in jobs:
        place.check(id)
        assert place.outcomes(id) == ["completed"]
    place.workers.pop().terminate()


@on_both
def test_a_training_that_is_killed_begins_again(place: Site) -> None:
    id = place.submit(epochs=30)
    place.wait_for_step(id, 8)
    strike(place.training(id))
    place.wait(id)
    place.check_undisturbed(id)
    assert place.outcomes(id) == ["broken", "completed"]


@on_both
def test_a_cancelled_job_ends_at_its_next_step(place: Site) -> None:
    id = place.submit(epochs=200)
    place.wait_for_step(id, 8)
    place.cancel(id)
    job = place.wait(id)
    assert (job.status, (job.result or {})["cancelled"]) == ("failed", True)
    place.check(id)


def test_the_job_of_a_dead_node_goes_on_on_another(alone: Site) -> None:
    alone.add_node("one", cpus=1)
    alone.staff(1)
    alone.wait_for_nodes("one")
    id = alone.submit(epochs=40)
    alone.wait_for_step(id, 8)
    alone.add_node("two", cpus=1)
    alone.kill_node("one")
    alone.wait(id)
    alone.check_undisturbed(id)
    *lost, last = alone.outcomes(id)
    assert (set(lost), last) == ({"lost"}, "completed")
    assert len(lost) <= 2  # Ray may take longer to notice than the lease lasts here
    assert alone.where(id)[-1] == "two"
