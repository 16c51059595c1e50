"""Fair share: which waiting jobs start now, and why the others wait. A pure function of its arguments.

Tenants are served by their virtual time, the smallest first (start-time fair queueing; Goyal, Vin, Cheng 1996): each
start adds the device-seconds that the job is expected to take, and the end of the job corrects that to the actual ones.
A job that has waited long for a large place has a node kept free for it: its tenant's virtual time stands still
meanwhile, so that nobody new comes before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from influencerai.scheduling.placement import Allocation, Capacity, ResourceRequest, best_place
from influencerai.scheduling.shortfall import describe, never_starts

EXPECTED_SECONDS = 600.0
"""Expected duration of an attempt without a better estimate."""


@dataclass(frozen=True, kw_only=True)
class WaitingJob:
    """A pending job that may start."""

    id: str
    tenant: str
    options: tuple[ResourceRequest, ...]
    """Requests of its resource options, the configured one first."""
    waited_seconds: float = 0
    expected_seconds: float = EXPECTED_SECONDS
    """How long it is expected to hold its allocation."""


@dataclass(frozen=True, kw_only=True)
class TenantShare:
    """Device time and running jobs of a tenant."""

    virtual_time: float = 0
    """Device-seconds that it has used, and what was added when it returned from idleness."""
    running: int = 0


@dataclass(frozen=True, kw_only=True)
class FairShareRules:
    """Limits of a decision."""

    running_per_tenant: int = 5
    reserve_after_seconds: float = 600
    """For a job that has waited this long, and would fit an idle node, a node is reserved."""
    reserved_nodes: int = 3
    """Most nodes that are reserved at once."""
    starts: int = 100
    """Most jobs that one decision starts."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A job that starts now."""

    job: WaitingJob
    option: int
    allocation: Allocation


@dataclass(kw_only=True)
class Decision:
    """Jobs that start now, and why the others wait."""

    starts: list[Start] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    """Why the other jobs that were considered do not start, by id."""
    impossible: set[str] = field(default_factory=set)
    """Ids of those that no node could train even if it were idle."""


def decide(
    jobs: Mapping[str, Sequence[WaitingJob]],
    shares: Mapping[str, TenantShare],
    capacity: Capacity,
    *,
    rules: FairShareRules,
) -> Decision:
    """Decide which jobs start on which nodes; `jobs` are each tenant's, in its own order."""
    decision = Decision()
    keeping: set[str] = set()
    why_never = cache(partial(never_starts, capacity.nodes))  # it reads every node, and many jobs ask for the same
    queues = {tenant: iter(waiting) for tenant, waiting in jobs.items()}
    running = {tenant: shares.get(tenant, TenantShare()).running for tenant in jobs}
    heap = [(shares.get(tenant, TenantShare()).virtual_time, tenant) for tenant in jobs]
    heapq.heapify(heap)
    while heap and len(decision.starts) < rules.starts:
        begins, tenant = heapq.heappop(heap)
        if running[tenant] >= rules.running_per_tenant:
            count = "A job of yours is" if running[tenant] == 1 else f"{running[tenant]} jobs of yours are"
            _explain(decision, queues[tenant], f"{count} running, and no more may at once.")
            continue
        job = next(queues[tenant], None)
        if job is None:
            continue
        placed = best_place(capacity, job.options)
        if placed is None:
            _refuse(decision, job, capacity, rules, keeping, why_never)
            heapq.heappush(heap, (begins, tenant))
            continue
        option, allocation = placed
        decision.starts.append(Start(job=job, option=option, allocation=allocation))
        running[tenant] += 1
        heapq.heappush(heap, (begins + job.expected_seconds * allocation.device_count, tenant))
    return decision


def _refuse(
    decision: Decision,
    job: WaitingJob,
    capacity: Capacity,
    rules: FairShareRules,
    keeping: set[str],
    why_never: Callable[[tuple[ResourceRequest, ...]], str],
) -> None:
    """Note why a job does not start; for one job of each tenant that has waited long, reserve a node."""
    possible = next((request for request in job.options if capacity.could_ever(request)), None)
    if possible is None:
        decision.impossible.add(job.id)
        wanted = why_never(job.options) if job.options else None
        decision.waiting[job.id] = wanted or "What it needs cannot be planned; the server's log says why."
        return
    may_reserve = job.tenant not in keeping and capacity.reserved < rules.reserved_nodes
    if may_reserve and job.waited_seconds >= rules.reserve_after_seconds and capacity.reserve(possible) is not None:
        keeping.add(job.tenant)
        decision.waiting[job.id] = f"A node is kept free for it: it needs {describe(possible)}."
    else:
        decision.waiting[job.id] = f"No node has {describe(possible)} free."


def _explain(decision: Decision, jobs: Iterable[WaitingJob], reason: str) -> None:
    for job in jobs:
        decision.waiting[job.id] = reason
