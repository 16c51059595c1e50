"""Forecasts: places, reasons and times of those who wait."""

from __future__ import annotations

from typing import Any

from influencerai.scheduling.fair_share import FairShareRules, TenantShare, WaitingJob
from influencerai.scheduling.placement import Allocation, Device, Node, ResourceRequest
from influencerai.scheduling.start_estimate import RunningJob, StartEstimate, estimate_starts

ONE = ResourceRequest(cpus=1, devices=1, device_gb=40)
BOTH = ResourceRequest(cpus=1, devices=2, device_gb=40)
HUGE = ResourceRequest(cpus=1, devices=1, device_gb=400)
NODE = Node(id="n", name="n", cpus=8, memory_gb=64, devices=(Device(name="H100", memory_gb=80),) * 2)


def job(id: str, *, request: ResourceRequest = ONE, seconds: float = 100) -> WaitingJob:
    return WaitingJob(id=id, tenant=id[:3], options=(request,), expected_seconds=seconds)


def running(tenant: str, index: int, seconds_left: float) -> RunningJob:
    allocation = Allocation(node="n", cpus=1, memory_gb=0, devices={index: 1.0})
    return RunningJob(tenant=tenant, allocation=allocation, seconds_left=seconds_left)


def told(jobs: dict[str, list[WaitingJob]], held: list[RunningJob], **rules: Any) -> dict[str, StartEstimate]:
    return estimate_starts(jobs, {}, [NODE], held, rules=FairShareRules(**rules))


def test_each_end_lets_the_next_one_start() -> None:
    found = told({"ann": [job("ann0"), job("ann1"), job("ann2")]}, [running("bob", 0, 30), running("bob", 1, 50)])
    assert [item.seconds for item in found.values()] == [30, 50, 130]
    assert [item.position for item in found.values()] == [1, 2, 3]
    assert found["ann0"].reason == "No node has a GPU with 40 GB, 1 core and 0 GB of memory free."


def test_positions_are_the_tenants_own() -> None:
    found = told({"ann": [job("ann0")], "bob": [job("bob0")]}, [running("bob", 0, 30), running("bob", 1, 50)])
    assert {id: item.position for id, item in found.items()} == {"ann0": 1, "bob0": 1}
    assert sorted(item.seconds or 0 for item in found.values()) == [30, 50]


def test_what_fits_nowhere_has_no_time() -> None:
    found = told({"ann": [job("ann0", request=HUGE), job("ann1")]}, [running("bob", 0, 30), running("bob", 1, 50)])
    assert found["ann0"] == StartEstimate(
        position=1,
        reason="No node has a GPU with 400 GB, 1 core and 0 GB of memory, so the job can never start here. "
        "Node n: 80 GB of GPU memory of 400.",
        seconds=None,
        is_impossible=True,
    )
    assert found["ann1"].seconds == 30


def test_a_tenant_at_its_limit_waits_for_its_own() -> None:
    shares = {"ann": TenantShare(running=1)}
    found = estimate_starts(
        {"ann": [job("ann0")]}, shares, [NODE], [running("ann", 0, 70)], rules=FairShareRules(running_per_tenant=1)
    )
    assert found["ann0"].seconds == 70
    assert found["ann0"].reason == "A job of yours is running, and no more may at once."


def test_a_job_for_two_waits_for_both() -> None:
    found = told({"ann": [job("ann0", request=BOTH)]}, [running("bob", 0, 30), running("bob", 1, 50)])
    assert found["ann0"].seconds == 50


def test_nothing_runs_and_nothing_fits() -> None:
    found = estimate_starts({"ann": [job("ann0")]}, {}, [], [], rules=FairShareRules())
    assert found["ann0"].seconds is None
