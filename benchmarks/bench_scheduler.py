"""The scheduler: time of one decision on Postgres, fairness over a simulated day, makespan of a backlog."""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks.cluster_job import PARTS, first_steps, overhead
from benchmarks.report import write_report
from influencerai.cluster.decisions import Decisions, View
from influencerai.scheduling.fair_share import FairShareRules, TenantShare, WaitingJob, decide
from influencerai.scheduling.placement import Allocation, Capacity, Device, Node, ResourceRequest
from influencerai.scheduling.resource_options import ResourceOption
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.schema import attempts
from tests.databases import temporary_databases

TARGETS = {
    "one decision, ms": "<= 20",
    "Jain's index of device-seconds": ">= 0.98",
    "makespan over its bound": "<= 1.15",
    "submit to first step through Ray, s": "<= 3",
    "watching over training, CPU-seconds": "<= 0.02",
}
KINDS = (
    ResourceRequest(cpus=2, memory_gb=16, devices=1, device_gb=20),
    ResourceRequest(cpus=2, memory_gb=16, devices=1, device_gb=60),
    ResourceRequest(cpus=4, memory_gb=32, devices=2, device_gb=60),
    ResourceRequest(cpus=8, memory_gb=64, devices=4, device_gb=60),
)
WEIGHTS = (8, 8, 2, 1)
DAY = 86_400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sizes = {"pending": arguments.pending, "tenants": arguments.tenants, "nodes": arguments.nodes}
    with temporary_databases() as databases:
        decision = asyncio.run(time_decisions(databases.new("postgres"), **sizes))
    figures = {
        "decision": decision,
        "day": simulate_day(random.Random(arguments.seed)),
        "backlog": drain_backlog(random.Random(arguments.seed)),
    }
    with tempfile.TemporaryDirectory() as folder:
        figures["first_step"] = first_steps(Path(folder) / "steps")
        figures["overhead"] = overhead(Path(folder) / "long")
    write_report(
        arguments.out, "scheduler", config={**sizes, "seed": arguments.seed}, figures=figures, text=table(figures)
    )


def cluster(count: int, *, devices: int = 8) -> list[Node]:
    """Nodes of one kind of GPU."""
    gpus = (Device(name="H100", memory_gb=80),) * devices
    return [
        Node(id=f"n{number:04}", name=f"n{number:04}", cpus=128, memory_gb=1024, devices=gpus)
        for number in range(count)
    ]


async def time_decisions(url: str, *, pending: int, tenants: int, nodes: int, rounds: int = 40) -> dict[str, Any]:
    """Milliseconds of a dispatcher's decision: look, decide, and claim the job that starts.

    The nodes are full but for one GPU, as they are whenever something has just ended.
    """
    machines = {node.id: node for node in cluster(nodes, devices=1)}
    view = View(ready=machines)
    decisions = Decisions(Settings(database_url=url, running_jobs_per_tenant=10**6))
    store = Store(url)
    await fill(store, pending=pending, tenants=tenants, busy=[*machines][1:])
    looking, claiming = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        async with store.read() as transaction:
            looked = await decisions.look(transaction, view)
        seen = time.perf_counter()
        async with store.write() as transaction:
            [started] = await decisions.start(transaction, view, looked)
        claimed = time.perf_counter()
        looking.append((seen - begun) * 1000)
        claiming.append((claimed - seen) * 1000)
        async with store.write() as transaction:
            await transaction.queue.finish(started.lease, ending="completed", result={})
    await store.database.close()
    both = [sum(parts) for parts in zip(looking, claiming, strict=True)]
    return {
        "ms": statistics.median(both),
        "p95_ms": statistics.quantiles(both, n=20)[18],
        "looking_ms": statistics.median(looking),
        "claiming_ms": statistics.median(claiming),
    }


async def fill(store: Store, *, pending: int, tenants: int, busy: Sequence[str]) -> None:
    """Pending jobs of many tenants, each with a priority, an age and needs of its own; and nodes that are taken."""
    options = [ResourceOption(request=request, micro_batch=1, gradient_checkpointing=False) for request in KINDS]
    kinds = [json.dumps({"cuda": [option.to_document()]}) for option in options]
    request = " ".join(f"WHEN {number} THEN '{kind}'" for number, kind in enumerate(kinds))
    columns = """id, tenant_id, type, status, cancelled, payload, snapshot, output_dir, priority, not_before,
        fence, lost_attempts, broken_attempts, last_seq, created_at, updated_at"""
    snapshot = json.dumps({"config": {"epochs": 1}})
    jobs = f"""
        INSERT INTO jobs ({columns}, needs)
        SELECT 'j' || n, 't' || n % {tenants}, 'lora-training', 'pending', false, '{{}}', '{snapshot}', 'x', 1 + n % 10,
            0, 0, 0, 0, 0, 1700000000000 + n, 1700000000000 + n, (CASE n / 100 % {len(kinds)} {request} END)
        FROM generate_series(1, {pending}) n
    """
    running = f"""
        INSERT INTO jobs ({columns}, owner, lease_expires_at)
        SELECT 'r' || n, 't' || n % {tenants}, 'lora-training', 'running', false, '{{}}', '{snapshot}', 'x', 5,
            0, 1, 0, 0, 0, 1700000000000 + n, 1700000000000 + n, 'ours', 9000000000000
        FROM generate_series(1, {len(busy)}) n
    """
    counts = f"""
        INSERT INTO counts (tenant_id, noun, first, second, count)
        SELECT 't' || n, 'job', status, 'lora-training', amount / {tenants}
        FROM generate_series(0, {tenants - 1}) n,
            (VALUES ('pending', {pending}), ('running', {len(busy)})) found (status, amount)
    """
    async with store.database.write() as connection:
        for statement in (jobs, running, counts):
            await connection.exec_driver_sql(statement)
        rows = [
            {
                "job_id": f"r{number}",
                "fence": 1,
                "node": node,
                "devices": 1.0,
                "charged": 600_000,
                "tok_per_second": 0.0,
                "held": Allocation(node=node, cpus=2, memory_gb=16, devices={0: 1.0}).to_json(),
                "started_at": 1_700_000_000_000,
            }
            for number, node in enumerate(busy, start=1)
        ]
        await connection.execute(insert(attempts), rows)
    async with store.database.write() as connection:
        await connection.exec_driver_sql("ANALYZE")


class Simulation:
    """Jobs that take as long as they say, on a clock of its own; usage is charged as the store does."""

    def __init__(self, nodes: list[Node], *, rules: FairShareRules) -> None:
        self.now = 0.0
        self.used: dict[str, float] = defaultdict(float)
        self.queues: dict[str, deque[tuple[WaitingJob, float, float]]] = defaultdict(deque)
        self._nodes, self._rules = nodes, rules
        self._charged: dict[str, float] = defaultdict(float)
        self._running: list[tuple[float, int, str, Allocation, float]] = []
        self._number = 0

    def submit(self, tenant: str, request: ResourceRequest, seconds: float) -> None:
        self._number += 1
        job = WaitingJob(id=str(self._number), tenant=tenant, options=(request,))
        self.queues[tenant].append((job, seconds, self.now))

    def start(self) -> None:
        """One decision."""
        running: dict[str, int] = defaultdict(int)
        for _, _, tenant, _, _ in self._running:
            running[tenant] += 1
        waiting = {
            tenant: [
                WaitingJob(id=job.id, tenant=tenant, options=job.options, waited_seconds=self.now - since)
                for job, _, since in list(queue)[:3]
            ]
            for tenant, queue in self.queues.items()
            if queue
        }
        shares = {
            tenant: TenantShare(virtual_time=self._charged[tenant], running=running[tenant]) for tenant in self.queues
        }
        capacity = Capacity(self._nodes, [allocation for _, _, _, allocation, _ in self._running])
        for start in decide(waiting, shares, capacity, rules=self._rules).starts:
            tenant = start.job.tenant
            item = next(item for item in self.queues[tenant] if item[0].id == start.job.id)
            self.queues[tenant].remove(item)
            charged = start.job.expected_seconds * start.allocation.device_count
            self._charged[tenant] += charged
            self._number += 1
            ends = self.now + item[1]
            heapq.heappush(
                self._running,
                (ends, self._number, tenant, start.allocation, charged - item[1] * start.allocation.device_count),
            )
            self.used[tenant] += item[1] * start.allocation.device_count

    def end_next(self) -> bool:
        """Let the clock go to the next end; whether there was one."""
        if not self._running:
            return False
        self.now, _, tenant, _, difference = heapq.heappop(self._running)
        self._charged[tenant] -= difference
        return True

    def unfinished(self) -> dict[str, float]:
        """Device-seconds after now of what runs, by tenant."""
        found: dict[str, float] = defaultdict(float)
        for ends, _, tenant, allocation, _ in self._running:
            found[tenant] += (ends - self.now) * allocation.device_count
        return found


def simulate_day(draw: random.Random, *, tenants: int = 20) -> dict[str, Any]:
    """Tenants who always have jobs waiting, each of its own length and mix, on 64 GPUs."""
    simulation = Simulation(cluster(8), rules=FairShareRules(running_per_tenant=64))
    usual = {f"t{number:02}": draw.uniform(300, 7200) for number in range(tenants)}
    while simulation.now < DAY:
        for tenant, seconds in usual.items():
            while len(simulation.queues[tenant]) < 5:
                [request] = draw.choices(KINDS, WEIGHTS)
                simulation.submit(tenant, request, seconds * draw.lognormvariate(0, 0.5))
        simulation.start()
        simulation.end_next()
    rest = simulation.unfinished()
    used = [simulation.used[tenant] - rest[tenant] for tenant in usual]
    return {
        "jain": sum(used) ** 2 / (len(used) * sum(value**2 for value in used)),
        "utilization": sum(used) / (64 * simulation.now),
        "device_hours": sorted(round(value / 3600, 1) for value in used),
    }


def drain_backlog(draw: random.Random, *, jobs: int = 1000) -> dict[str, Any]:
    """All jobs there at once, to the end; the bound is their device-seconds over the GPUs, or the longest job."""
    simulation = Simulation(cluster(8), rules=FairShareRules(running_per_tenant=64))
    seconds_in_all, longest = 0.0, 0.0
    for number in range(jobs):
        [request] = draw.choices(KINDS, WEIGHTS)
        seconds = draw.lognormvariate(7, 0.7)
        simulation.submit(f"t{number % 20:02}", request, seconds)
        seconds_in_all += seconds * request.devices
        longest = max(longest, seconds)
    simulation.start()
    while simulation.end_next():
        simulation.start()
    bound = max(seconds_in_all / 64, longest)
    return {"makespan_hours": simulation.now / 3600, "bound_hours": bound / 3600, "ratio": simulation.now / bound}


def table(figures: Mapping[str, Any]) -> str:
    rows = {
        "one decision, ms": figures["decision"]["ms"],
        "of which looking, which locks nothing, ms": figures["decision"]["looking_ms"],
        "of which the transaction that claims, ms": figures["decision"]["claiming_ms"],
        "one decision, 95th percentile, ms": figures["decision"]["p95_ms"],
        "Jain's index of device-seconds": figures["day"]["jain"],
        "GPUs in use on that day": figures["day"]["utilization"],
        "makespan over its bound": figures["backlog"]["ratio"],
        "submit to first step through Ray, s": figures["first_step"]["first step"],
        **{f"of which until {part}, s": figures["first_step"][part] for part in PARTS[:-1]},
        "watching over training, CPU-seconds": figures["overhead"]["ratio"],
    }
    lines = ["| what | figure | target |", "|---|---|---|"]
    lines += [f"| {name} | {value:.3g} | {TARGETS.get(name, '')} |" for name, value in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
