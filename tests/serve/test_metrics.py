"""Metrics: what /metrics shows of jobs, nodes and disks, the same from every server of a database."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from influencerai.domain.problem import Problem
from influencerai.scheduling.placement import Allocation, Device, Node
from influencerai.settings import Settings
from influencerai.store.events import StepFigures
from influencerai.store.nodes import NodeState
from influencerai.store.pending_jobs import ClaimRules
from influencerai.store.requeue import RetryRules
from tests.serve.running import Api, running

pytestmark = pytest.mark.anyio
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scraped(api: Api) -> Samples:
    """Every sample but those of this process."""
    text = (await api.client.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "replica" not in sample.labels
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"influencerai_{name}", tuple(sorted(labels.items()))]


async def test_jobs_wait_take_and_fail(both_api: Api) -> None:
    api = both_api
    await api.job()
    lease, _ = await api.claim()
    await api.job()
    external = await api.job()
    cancelled = await api.job()
    assert (await api.post(f"/jobs/{cancelled['id']}/cancel")).status_code == 200
    async with api.service.store.write() as transaction:
        for step, speed in ((1, 100.0), (2, 2.5)):
            figures = [StepFigures(step=step, epoch=1, images_per_second=speed)]
            await transaction.queue.record(lease, seconds=60, figures=figures)
    samples = await scraped(api)
    assert value(samples, "images_per_second") == 2.5
    assert value(samples, "queue_wait_seconds_count") == 1
    assert value(samples, "queue_wait_seconds_bucket", le="60.0") == 1
    assert value(samples, "queue_oldest_seconds") >= 0
    assert [value(samples, "jobs", status=name) for name in ("pending", "running", "cancelled")] == [2, 1, 1]

    async with api.service.store.write() as transaction:
        await transaction.queue.finish(
            lease, ending="failed", result={"error": "x"}, problem=Problem("x", "out_of_memory")
        )
    await api.patch(f"/jobs/{external['id']}", {"status": "running"})
    await api.patch(f"/jobs/{external['id']}", {"status": "completed"})
    samples = await scraped(api)
    assert value(samples, "job_failures_total", code="out_of_memory") == 1
    assert value(samples, "job_seconds_count", outcome="failed") == 1
    assert value(samples, "job_seconds_bucket", outcome="completed", le="+Inf") == 1
    assert value(samples, "job_seconds_count", outcome="cancelled") == 0
    assert value(samples, "queue_wait_seconds_count") == 2
    assert value(samples, "images_per_second") == 0
    # Counters never fall, also when jobs are deleted.
    assert (await api.delete(f"/jobs/{lease.job_id}")).status_code == 200
    assert value(await scraped(api), "job_failures_total", code="out_of_memory") == 1


@pytest.mark.slow
async def test_a_job_that_is_taken_again_has_waited_once(api: Api) -> None:
    await api.job()
    lease, _ = await api.claim()
    async with api.service.store.write() as transaction:
        await transaction.queue.requeue(lease, "released", problem=None, retries=RetryRules())
    await api.claim()
    assert value(await scraped(api), "queue_wait_seconds_count") == 1


@pytest.mark.slow
async def test_nodes_gpus_and_disks(api: Api) -> None:
    gpus = (Device(name="H200", memory_gb=141.0), Device(name="H200", memory_gb=141.0))
    node = Node(id="a" * 56, name="gpu-1", cpus=16, memory_gb=128, devices=gpus)
    other = Node(id="b" * 56, name="gpu-2", cpus=8, memory_gb=64)
    await api.job()
    job = (await api.get("/jobs")).json()["data"][0]
    rules = ClaimRules(seconds=60, running_per_tenant=9, dataset_wait_seconds=0)
    held = Allocation(node=node.id, cpus=4, memory_gb=8, devices={1: 0.5})
    async with api.service.store.write() as transaction:
        await transaction.nodes.note([NodeState(node=node), NodeState(node=other, problem="no models")])
        await transaction.queue.take(job["tenantId"], job["id"], node="gpu-1", allocation=held, seconds=60, rules=rules)
    samples = await scraped(api)
    assert [value(samples, "nodes", state=state) for state in ("ready", "not ready", "draining")] == [1, 1, 0]
    assert value(samples, "gpu_memory_bytes", node="gpu-1", gpu="0") == 141e9
    assert [value(samples, "gpu_allocation", node="gpu-1", gpu=gpu) for gpu in "01"] == [0, 0.5]
    assert value(samples, "node_cpus_allocated", node="gpu-1") == 4
    assert 0 < value(samples, "disk_free_bytes", folder="root") <= value(samples, "disk_size_bytes", folder="root")


@pytest.mark.slow
async def test_two_servers_show_the_same_totals(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(root=tmp_path, database_url=sqlite_url)
    async with running(settings) as one, running(settings) as other:
        await one.failed_job()
        first, second = await scraped(one), await scraped(other)
        changing = {"influencerai_disk_free_bytes", "influencerai_queue_oldest_seconds"}
        assert first.keys() == second.keys()
        assert {key: first[key] for key in first if key[0] not in changing} == {
            key: second[key] for key in second if key[0] not in changing
        }
        text = (await one.client.get("/metrics")).text
        assert 'influencerai_requests_total{method="POST"' in text
        assert 'replica="' in text
