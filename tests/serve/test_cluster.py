"""GET /cluster: the machines as all may see them, jobs as their owners may."""

from __future__ import annotations

from typing import Any

import pytest

from influencerai.scheduling.placement import Allocation, Device, Node
from influencerai.store.nodes import NodeState
from influencerai.store.pending_jobs import ClaimRules
from tests.serve.running import ANN, BOB, Api

pytestmark = pytest.mark.anyio

BOX = Node(
    id="a" * 56,
    name="gpu-box-1",
    cpus=16,
    memory_gb=64,
    devices=(Device(name="H100", memory_gb=80), Device(name="H100", memory_gb=80)),
)
LAPTOP = Node(id="b" * 56, name="laptop", cpus=8, memory_gb=16)


async def note(api: Api, node: Node, *, problem: str | None = None, is_draining: bool = False) -> None:
    async with api.service.store.write() as transaction:
        await transaction.nodes.note([NodeState(node=node, problem=problem, is_draining=is_draining)])


async def place(api: Api, job: dict[str, Any], held: Allocation) -> None:
    rules = ClaimRules(seconds=60, running_per_tenant=100, dataset_wait_seconds=0)
    async with api.service.store.write() as transaction:
        taken = await transaction.queue.take(
            job["tenantId"], job["id"], node="gpu-box-1", allocation=held, seconds=60, rules=rules
        )
    assert taken is not None


async def test_a_tenant_sees_all_machines_and_its_own_jobs(both_api: Api) -> None:
    api = both_api
    await note(api, BOX)
    await note(api, LAPTOP, problem="torch is not installed.")
    ours, theirs = await api.job(), await api.job(tenant=BOB)
    await place(api, ours, Allocation(node=BOX.id, cpus=2, memory_gb=8, devices={0: 1.0}))
    await place(api, theirs, Allocation(node=BOX.id, cpus=2, memory_gb=8, devices={1: 0.25}))
    for tenant, own in ((ANN, ours), (BOB, theirs)):
        answer = await api.get("/cluster", tenant=tenant)
        box, laptop = answer.json()["nodes"]
        assert (box["name"], box["state"], box["problem"]) == ("gpu-box-1", "ready", None)
        assert [device["held"] for device in box["devices"]] == [1.0, 0.25]
        assert (box["cpusHeld"], box["memoryHeldGb"], box["otherJobs"]) == (4, 16, 1)
        assert [job["id"] for job in box["jobs"]] == [own["id"]]
        assert (laptop["state"], laptop["problem"]) == ("not ready", "torch is not installed.")
        other = theirs if own is ours else ours
        assert other["id"] not in answer.text
        assert other["tenantId"] not in answer.text


async def test_a_dry_run_takes_the_clusters_gpus_for_its_device(api: Api) -> None:
    dataset, config = await api.dataset(), await api.config(meta={"gpus": 2}, batchSize=2)
    draft = {"type": "lora-training", "payload": {"datasetId": dataset["id"], "loraConfigId": config["id"]}}

    async def told() -> dict[str, Any]:
        report: dict[str, Any] = (await api.post("/jobs?dryRun=true", draft)).json()
        return report

    await note(api, BOX, problem="torch is not installed.")
    report = await told()
    assert report["device"]["kind"] == "cpu"
    assert any("gpus is 2, but the run trains on one device" in warning for warning in report["warnings"])
    await note(api, BOX)
    report = await told()
    assert (report["device"]["name"], report["device"]["count"]) == ("H100", 2)
    assert not any("gpus is 2" in warning for warning in report["warnings"])


async def test_a_machine_that_ends_says_so_and_one_that_is_gone_is_not_there(api: Api) -> None:
    await note(api, BOX, is_draining=True)
    [box] = (await api.get("/cluster")).json()["nodes"]
    assert box["state"] == "draining"
    async with api.service.store.write() as transaction:
        await transaction.nodes.forget(unseen_seconds=-1)
    assert (await api.get("/cluster")).json()["nodes"] == []


async def test_a_waiting_job_says_its_place_and_when_it_starts(api: Api) -> None:
    from influencerai.scheduling.start_estimate import StartEstimate

    job = await api.job()
    async with api.service.store.write() as transaction:
        said = StartEstimate(position=3, reason="No node has a GPU with 40 GB free.", seconds=90)
        await transaction.pending_jobs.explain({job["id"]: said})
    found = (await api.get(f"/jobs/{job['id']}")).json()
    assert (found["queuePosition"], found["waiting"]) == (3, "No node has a GPU with 40 GB free.")
    assert found["estimatedStart"] > found["createdAt"]
    async with api.service.store.write() as transaction:
        never = StartEstimate(position=3, reason="No node has 40 GB.", seconds=None, is_impossible=True)
        await transaction.pending_jobs.explain({job["id"]: never})
    found = (await api.get(f"/jobs/{job['id']}")).json()
    assert (found["queuePosition"], found["waiting"], found["estimatedStart"]) == (None, "No node has 40 GB.", None)
    await place(api, job, Allocation(node=BOX.id, cpus=2, memory_gb=8))
    found = (await api.get(f"/jobs/{job['id']}")).json()
    assert (found["queuePosition"], found["waiting"], found["estimatedStart"]) == (None, None, None)


async def test_a_job_that_no_machine_could_ever_take_is_warned_of_at_once(api: Api) -> None:
    small = Node(id="c" * 56, name="small", cpus=1, memory_gb=64, devices=(Device(name="T4", memory_gb=16),))
    await note(api, small)
    await note(api, LAPTOP)
    lacks = "Node laptop: no GPU; Node small: 1 core of 2."
    job = await api.job()
    assert any("can never start" in text and text.endswith(lacks) for text in job["warnings"])
    draft = {"type": "lora-training", "payload": job["payload"]}
    report = (await api.post("/jobs?dryRun=true", draft)).json()
    assert any(text.endswith(lacks) for text in report["warnings"])
    nodes = {node["name"]: node["readyFor"] for node in (await api.get("/cluster")).json()["nodes"]}
    assert nodes == {"small": "no training: 1 core of 2", "laptop": "no training: no GPU"}
    api.service.health._needs_worker = True
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["runner"]["status"]) == (503, "failed")
    assert "No node is large enough" in (await api.service.health.readiness()).checks["runner"].detail
    await note(api, BOX)
    ready = (await api.service.health._look()).checks["runner"]
    assert (ready.status, ready.detail) == (
        "ok",
        "1 of 3 nodes can train; the first one: trainings on 2 GPUs with 80 GB.",
    )
    assert not any("can never start" in text for text in (await api.job())["warnings"])
