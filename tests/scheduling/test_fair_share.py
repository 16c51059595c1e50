"""Decisions: fair between tenants, by their own order within one, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from influencerai.scheduling.fair_share import FairShareRules, TenantShare, WaitingJob, decide
from influencerai.scheduling.placement import Allocation, Capacity, Device, Node, ResourceRequest

GPU = Device(name="H100", memory_gb=80)
ONE = ResourceRequest(cpus=1, devices=1, device_gb=40)


def nodes(count: int, *, devices: int = 1) -> list[Node]:
    return [Node(id=f"n{i}", name=f"n{i}", cpus=64, memory_gb=512, devices=(GPU,) * devices) for i in range(count)]


def jobs(tenant: str, count: int, *, options: tuple[ResourceRequest, ...] = (ONE,), **fields: Any) -> list[WaitingJob]:
    return [WaitingJob(id=f"{tenant}{number}", tenant=tenant, options=options, **fields) for number in range(count)]


def test_tenants_share_what_is_free_and_keep_their_own_order() -> None:
    found = decide(
        {"ann": jobs("ann", 9), "bob": jobs("bob", 9), "cyd": jobs("cyd", 1)},
        {},
        Capacity(nodes(6)),
        rules=FairShareRules(),
    )
    started = [start.job.id for start in found.starts]
    assert Counter(id[:3] for id in started) == {"ann": 3, "bob": 2, "cyd": 1}
    assert [id for id in started if id[:3] == "ann"] == ["ann0", "ann1", "ann2"]
    assert found.waiting["bob2"] == "No node has a GPU with 40 GB, 1 core and 0 GB of memory free."


def test_who_has_had_the_least_goes_first() -> None:
    shares = {"ann": TenantShare(virtual_time=5000), "bob": TenantShare(virtual_time=100)}
    found = decide({"ann": jobs("ann", 3), "bob": jobs("bob", 3)}, shares, Capacity(nodes(3)), rules=FairShareRules())
    assert [start.job.id for start in found.starts] == ["bob0", "bob1", "bob2"]


def test_many_gpus_cost_as_many_times_as_much() -> None:
    four = ResourceRequest(cpus=1, devices=4, device_gb=40)
    found = decide(
        {"ann": jobs("ann", 2, options=(four,)), "bob": jobs("bob", 8)},
        {},
        Capacity(nodes(2, devices=4)),
        rules=FairShareRules(),
    )
    assert Counter(start.job.tenant for start in found.starts) == {"ann": 1, "bob": 4}


def test_only_so_many_of_a_tenant_run_at_once() -> None:
    found = decide(
        {"ann": jobs("ann", 5)},
        {"ann": TenantShare(running=1)},
        Capacity(nodes(9)),
        rules=FairShareRules(running_per_tenant=3),
    )
    assert [start.job.id for start in found.starts] == ["ann0", "ann1"]
    assert found.waiting == dict.fromkeys(
        ["ann2", "ann3", "ann4"], "3 jobs of yours are running, and no more may at once."
    )


def test_a_job_that_fits_nowhere_lets_others_pass() -> None:
    large = ResourceRequest(cpus=1, devices=1, device_gb=140)
    found = decide(
        {"ann": [*jobs("big", 1, options=(large,)), *jobs("ann", 1)]}, {}, Capacity(nodes(1)), rules=FairShareRules()
    )
    assert [start.job.id for start in found.starts] == ["ann0"]
    assert found.waiting == {
        "big0": "No node has a GPU with 140 GB, 1 core and 0 GB of memory, so the job can never start here. "
        "Node n0: 80 GB of GPU memory of 140."
    }


def test_a_fallback_is_said() -> None:
    wants = (ResourceRequest(cpus=1, devices=1, device_gb=100), ResourceRequest(cpus=1, devices=1, device_gb=60))
    [start] = decide({"ann": jobs("ann", 1, options=wants)}, {}, Capacity(nodes(1)), rules=FairShareRules()).starts
    assert start.option == 1


@pytest.mark.parametrize(("reserve_after", "starts"), [(20, True), (1e9, False)])
def test_a_large_job_is_not_passed_over_for_ever(reserve_after: float, starts: bool) -> None:
    """Small jobs of another tenant keep coming, and never do both GPUs come free at once by themselves."""
    large = ResourceRequest(cpus=1, devices=2, device_gb=40)
    held = [(4 + 5 * index, Allocation(node="n0", cpus=1, memory_gb=0, devices={index: 1.0})) for index in range(2)]
    for now in range(100):
        held = [(ends, allocation) for ends, allocation in held if ends > now]
        found = decide(
            {"ann": jobs("ann", 1, options=(large,), waited_seconds=now), "bob": jobs("bob", 2)},
            {"ann": TenantShare(virtual_time=0), "bob": TenantShare(virtual_time=now)},
            Capacity(nodes(1, devices=2), [allocation for _, allocation in held]),
            rules=FairShareRules(reserve_after_seconds=reserve_after),
        )
        if any(start.job.tenant == "ann" for start in found.starts):
            assert starts
            assert 20 < now < 40
            return
        assert found.waiting["ann0"] == (
            "A node is kept free for it: it needs 2 GPUs with 40 GB, 1 core and 0 GB of memory."
            if now >= reserve_after
            else "No node has 2 GPUs with 40 GB, 1 core and 0 GB of memory free."
        )
        held += [(now + 10, start.allocation) for start in found.starts]
    assert not starts


def test_few_nodes_are_kept_free_at_once() -> None:
    """A backlog of large jobs must not empty the cluster, nor may one tenant's."""
    large = ResourceRequest(cpus=1, devices=2, device_gb=40)
    taken = [Allocation(node=f"n{number}", cpus=1, memory_gb=0, devices={0: 1.0}) for number in range(10)]
    found = decide(
        {
            **{name: jobs(name, 9, options=(large,), waited_seconds=9999) for name in ("ann", "cyd", "dan", "eve")},
            "bob": jobs("bob", 20),
        },
        {"bob": TenantShare(virtual_time=1)},
        Capacity(nodes(10, devices=2), taken),
        rules=FairShareRules(reserved_nodes=3, running_per_tenant=100),
    )
    kept = [id for id, reason in found.waiting.items() if reason.startswith("A node is kept free")]
    assert kept == ["ann0", "cyd0", "dan0"]
    assert len(found.starts) == 7
    assert found.impossible == set()


def test_half_of_the_nodes_stay_open() -> None:
    large = ResourceRequest(cpus=1, devices=2, device_gb=40)
    taken = [Allocation(node=f"n{number}", cpus=1, memory_gb=0, devices={0: 1.0}) for number in range(3)]
    waiting = {name: jobs(name, 1, options=(large,), waited_seconds=9999) for name in ("ann", "cyd", "dan")}
    small = {"zoe": jobs("zoe", 3)}
    rules = FairShareRules(reserved_nodes=3)
    found = decide({**waiting, **small}, {}, Capacity(nodes(3, devices=2), taken), rules=rules)
    assert len(found.starts) == 2


def test_nodes_that_are_away_for_a_moment_are_waited_for() -> None:
    """Neither a slower way nor the cores are chosen because of that."""
    ways = (ResourceRequest(cpus=1, devices=1, device_gb=60), ResourceRequest(cpus=1, devices=1, device_gb=20))
    small = Node(id="small", name="small", cpus=8, memory_gb=64, devices=(Device(name="T4", memory_gb=24),))
    away = nodes(1)
    found = decide(
        {"ann": jobs("ann", 1, options=ways)}, {}, Capacity([small, *away], cordoned={"n0"}), rules=FairShareRules()
    )
    assert found.starts == []
    assert found.impossible == set()
    [start] = decide({"ann": jobs("ann", 1, options=ways)}, {}, Capacity([small]), rules=FairShareRules()).starts
    assert start.option == 1


def test_a_job_that_cannot_be_planned_says_so() -> None:
    found = decide({"ann": jobs("ann", 1, options=())}, {}, Capacity(nodes(1)), rules=FairShareRules())
    assert found.waiting == {"ann0": "What it needs cannot be planned; the server's log says why."}
    assert found.impossible == {"ann0"}


def test_what_no_node_could_train_is_told_apart() -> None:
    huge = ResourceRequest(cpus=1, devices=1, device_gb=140)
    waiting = {"ann": [*jobs("big", 1, options=(huge,)), *jobs("ann", 2)]}
    assert decide(waiting, {}, Capacity(nodes(1)), rules=FairShareRules()).impossible == {"big0"}
