"""Where jobs go: by what they need, packed, never more than a node has, and with a reason where they cannot."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from influencerai.scheduling.placement import Allocation
from tests.cluster.site import Site, site
from tests.databases import Databases

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.xdist_group("ray"),
]

SHORT: dict[str, Any] = {"epochs": 2}


@pytest.mark.campaign
def test_jobs_go_to_the_gpus_that_they_need(alone: Site) -> None:
    """One GPU at a time per job, the smallest that does; what fits none waits with the reason until one joins."""
    alone.add_node("small", cpus=4, gpus=1, gpu_gb=0.5, gpu="T4")
    alone.staff(1)
    alone.wait_for_nodes("small")
    waiting = alone.submit(**SHORT)
    alone.until(lambda: "No node has a GPU with" in (alone.job(waiting).waiting or ""))
    job = alone.job(waiting)
    assert (job.queue_position, job.estimated_start) == (None, None), "it waits for a node, in no queue"
    assert alone.where(waiting) == []

    alone.add_node("large", cpus=4, gpus=2, gpu_gb=24)
    alone.wait_for_nodes("large")
    jobs = [waiting, alone.submit(**SHORT), alone.submit(**SHORT)]
    alone.until(lambda: len(alone.active()) == 2)
    last = alone.job(jobs[-1])
    alone.until(lambda: alone.job(last.id).estimated_start is not None or alone.job(last.id).status != "pending")
    for id in jobs:
        assert alone.wait(id).status == "completed"
        *unbegun, attempt = alone.history(id).attempts
        assert all(other["begun_at"] is None for other in unbegun), "a busy machine begins too late"
        assert attempt["node"] == "large"
        assert attempt["devices"] == 1.0
        assert Allocation.from_json(attempt["held"]).memory_gb > 0
    used = [Allocation.from_json(alone.history(id).attempts[-1]["held"]).devices for id in jobs]
    assert {index for devices in used for index in devices} == {0, 1}
    alone.check_undisturbed(waiting)


@pytest.mark.campaign
def test_jobs_share_a_gpu_where_that_is_allowed(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> None:
    with site(tmp_path_factory.mktemp("site"), databases.new("sqlite"), share_gpus=True) as place:
        place.add_node("one", cpus=8, gpus=2, gpu_gb=16, memory_gb=30)
        place.staff(1)
        place.wait_for_nodes("one")
        jobs = [place.submit(epochs=8) for _ in range(4)]
        place.until(lambda: len(place.active()) == 4)
        held = [item.allocation.devices for item in place.active()]
        assert [list(devices.values()) for devices in held] == [[0.25]] * 4
        assert len({index for devices in held for index in devices}) == 1, "the first GPU is filled first"
        for id in jobs:
            assert place.wait(id).status == "completed"
        place.check_never_overcommitted()
