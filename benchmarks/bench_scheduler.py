"""The scheduler: time of one decision on Postgres, fairness over a simulated day, makespan of a backlog."""

from __future__ import annotations

import argparse
import asyncio
import heapq
import random
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks.report import write_report
from influencerai.planning.dispatch import DispatchRules, TenantShare, WaitingJob, decide
from influencerai.planning.placement import Capacity, Device, Holding, Needs, Node
from influencerai.store import Store
from influencerai.store.turns import ClaimRules
from tests.databases import temporary_databases

TARGETS = {
    "one decision, ms": "<= 20",
    "Jain's index of device-seconds": ">= 0.98",
    "makespan over its bound": "<= 1.15",
}
KINDS = (
    Needs(cpus=2, memory_gb=16, devices=1, device_gb=20),
    Needs(cpus=2, memory_gb=16, devices=1, device_gb=60),
    Needs(cpus=4, memory_gb=32, devices=2, device_gb=60),
    Needs(cpus=8, memory_gb=64, devices=4, device_gb=60),
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
    """Milliseconds of what a dispatcher does in its transaction: look, decide, and lock what it starts.

    The nodes are full but for one GPU, as they are whenever something has just ended.
    """
    machines = cluster(nodes, devices=1)
    held = [Holding(node=node.id, cpus=2, memory_gb=16, devices={0: 1.0}) for node in machines[1:]]
    rules = ClaimRules(seconds=60, running_per_tenant=10**6, dataset_wait_seconds=60)
    store = Store(url)
    await fill(store, pending=pending, tenants=tenants)
    asking, deciding, total = [], [], []
    for number in range(rounds):
        async with store.write() as transaction:
            begun = time.perf_counter()
            waiting = await transaction.turns.waiting(rules, per_tenant=5)
            shares = await transaction.turns.shares(waiting)
            asked = time.perf_counter()
            jobs = {
                tenant: [
                    WaitingJob(id=id, tenant=tenant, options=(KINDS[(index + number) % len(KINDS)],))
                    for index, id in enumerate(ids)
                ]
                for tenant, ids in waiting.items()
            }
            decision = decide(jobs, shares, Capacity(machines, held), rules=DispatchRules())
            decided = time.perf_counter()
            for start in decision.starts:
                assert await transaction.turns.lock(start.job.tenant, start.job.id) is not None
            ended = time.perf_counter()
        assert len(decision.starts) == 1
        asking.append((asked - begun) * 1000)
        deciding.append((decided - asked) * 1000)
        total.append((ended - begun) * 1000)
    await store.database.close()
    return {
        "ms": statistics.median(total),
        "p95_ms": statistics.quantiles(total, n=20)[18],
        "asking_ms": statistics.median(asking),
        "deciding_ms": statistics.median(deciding),
    }


async def fill(store: Store, *, pending: int, tenants: int) -> None:
    """Pending jobs of many tenants, each with a priority and an age of its own."""
    jobs = f"""
        INSERT INTO jobs (id, tenant_id, type, status, cancelled, payload, snapshot, output_dir, priority, not_before,
            fence, lost_attempts, broken_attempts, last_seq, created_at, updated_at)
        SELECT 'j' || n, 't' || n % {tenants}, 'lora-training', 'pending', false, '{{}}', '{{}}', 'x', 1 + n % 10, 0,
            0, 0, 0, 0, 1700000000000 + n, 1700000000000 + n
        FROM generate_series(1, {pending}) n
    """
    counts = """
        INSERT INTO counts (tenant_id, noun, first, second, count)
        SELECT tenant_id, 'job', status, type, count(*) FROM jobs GROUP BY 1, 3, 4
    """
    async with store.database.write() as connection:
        for statement in (jobs, counts, "INSERT INTO tenants (id) SELECT DISTINCT tenant_id FROM jobs"):
            await connection.execute(text(statement))
    async with store.database.write() as connection:
        await connection.execute(text("ANALYZE"))


class Simulation:
    """Jobs that take as long as they say, on a clock of its own; usage is charged as the store does."""

    def __init__(self, nodes: list[Node], *, rules: DispatchRules) -> None:
        self.now = 0.0
        self.used: dict[str, float] = defaultdict(float)
        self.queues: dict[str, deque[tuple[WaitingJob, float, float]]] = defaultdict(deque)
        self._nodes, self._rules = nodes, rules
        self._charged: dict[str, float] = defaultdict(float)
        self._running: list[tuple[float, int, str, Holding, float]] = []
        self._number = 0

    def submit(self, tenant: str, needs: Needs, seconds: float) -> None:
        self._number += 1
        job = WaitingJob(id=str(self._number), tenant=tenant, options=(needs,))
        self.queues[tenant].append((job, seconds, self.now))

    def start(self) -> None:
        """One decision."""
        running: dict[str, int] = defaultdict(int)
        for _, _, tenant, _, _ in self._running:
            running[tenant] += 1
        waiting = {
            tenant: [
                WaitingJob(id=job.id, tenant=tenant, options=job.options, waited_seconds=self.now - since)
                for job, _, since in list(queue)[:5]
            ]
            for tenant, queue in self.queues.items()
            if queue
        }
        shares = {
            tenant: TenantShare(virtual_time=self._charged[tenant], running=running[tenant]) for tenant in self.queues
        }
        capacity = Capacity(self._nodes, [holding for _, _, _, holding, _ in self._running])
        for start in decide(waiting, shares, capacity, rules=self._rules).starts:
            tenant = start.job.tenant
            item = next(item for item in self.queues[tenant] if item[0].id == start.job.id)
            self.queues[tenant].remove(item)
            charged = start.job.expected_seconds * start.holding.device_count
            self._charged[tenant] += charged
            self._number += 1
            ends = self.now + item[1]
            heapq.heappush(
                self._running,
                (ends, self._number, tenant, start.holding, charged - item[1] * start.holding.device_count),
            )
            self.used[tenant] += item[1] * start.holding.device_count

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
        for ends, _, tenant, holding, _ in self._running:
            found[tenant] += (ends - self.now) * holding.device_count
        return found


def simulate_day(draw: random.Random, *, tenants: int = 20) -> dict[str, Any]:
    """Tenants who always have jobs waiting, each of its own length and mix, on 64 GPUs."""
    simulation = Simulation(cluster(8), rules=DispatchRules(running_per_tenant=64))
    usual = {f"t{number:02}": draw.uniform(300, 7200) for number in range(tenants)}
    while simulation.now < DAY:
        for tenant, seconds in usual.items():
            while len(simulation.queues[tenant]) < 5:
                [needs] = draw.choices(KINDS, WEIGHTS)
                simulation.submit(tenant, needs, seconds * draw.lognormvariate(0, 0.5))
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
    simulation = Simulation(cluster(8), rules=DispatchRules(running_per_tenant=64))
    seconds_in_all, longest = 0.0, 0.0
    for number in range(jobs):
        [needs] = draw.choices(KINDS, WEIGHTS)
        seconds = draw.lognormvariate(7, 0.7)
        simulation.submit(f"t{number % 20:02}", needs, seconds)
        seconds_in_all += seconds * needs.devices
        longest = max(longest, seconds)
    simulation.start()
    while simulation.end_next():
        simulation.start()
    bound = max(seconds_in_all / 64, longest)
    return {"makespan_hours": simulation.now / 3600, "bound_hours": bound / 3600, "ratio": simulation.now / bound}


def table(figures: Mapping[str, Any]) -> str:
    rows = {
        "one decision, ms": figures["decision"]["ms"],
        "of which asking Postgres, ms": figures["decision"]["asking_ms"],
        "of which deciding, ms": figures["decision"]["deciding_ms"],
        "one decision, 95th percentile, ms": figures["decision"]["p95_ms"],
        "Jain's index of device-seconds": figures["day"]["jain"],
        "GPUs in use on that day": figures["day"]["utilization"],
        "makespan over its bound": figures["backlog"]["ratio"],
    }
    lines = ["| what | figure | target |", "|---|---|---|"]
    lines += [f"| {name} | {value:.3g} | {TARGETS.get(name, '')} |" for name, value in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
