"""Start estimates: when waiting jobs are likely to start, by simulating decisions as running jobs end."""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from influencerai.scheduling.fair_share import EXPECTED_SECONDS, FairShareRules, TenantShare, WaitingJob, decide
from influencerai.scheduling.placement import Allocation, Capacity, Node

_WAITS_ITS_TURN = "It waits its turn: others come before it."
_LOOKAHEAD = 50
"""Ends of jobs that are simulated: what starts later has no estimate."""


@dataclass(frozen=True, kw_only=True)
class StartEstimate:
    """Place, reason and estimated start of a waiting job."""

    position: int
    """Among the jobs of its tenant; 1 is the next."""
    reason: str
    """Why it does not start now."""
    seconds: float | None
    """Until it starts; None beyond the simulated time, and where it fits no node."""
    is_impossible: bool = False
    """Whether no node could train it even if it were idle."""


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """The allocation of an attempt, and its expected remaining time."""

    tenant: str
    allocation: Allocation
    seconds_left: float = EXPECTED_SECONDS


def estimate_starts(
    jobs: Mapping[str, Sequence[WaitingJob]],
    shares: Mapping[str, TenantShare],
    nodes: Iterable[Node],
    running: Iterable[RunningJob],
    *,
    rules: FairShareRules,
    cordoned: Collection[str] = (),
    seconds: float = 1.0,
) -> dict[str, StartEstimate]:
    """The estimate of each job by id; `jobs` are each tenant's that do not start now, in its order.

    The simulation takes at most `seconds` of this process; `cordoned` as for `Capacity`.
    """
    until = time.monotonic() + seconds
    nodes = tuple(nodes)
    ends = [(max(0.0, job.seconds_left), number, job) for number, job in enumerate(running)]
    heapq.heapify(ends)
    held = {number: job.allocation for _, number, job in ends}
    queues = {tenant: list(waiting) for tenant, waiting in jobs.items()}
    counts = {tenant: shares.get(tenant, TenantShare()) for tenant in {*jobs, *(job.tenant for _, _, job in ends)}}
    number, clock = len(held), 0.0
    reasons: dict[str, str] = {}
    starts: dict[str, float] = {}
    impossible: set[str] = set()
    for look in range(_LOOKAHEAD):
        decision = decide(queues, counts, Capacity(nodes, held.values(), cordoned=cordoned), rules=rules)
        if not look:
            reasons, impossible = dict(decision.waiting), decision.impossible
        for start in decision.starts:
            job, tenant = start.job, start.job.tenant
            starts[job.id] = clock
            queues[tenant].remove(job)
            share = counts[tenant]
            paid = share.virtual_time + job.expected_seconds * start.allocation.device_count
            counts[tenant] = replace(share, virtual_time=paid, running=share.running + 1)
            number += 1
            held[number] = start.allocation
            runs = RunningJob(tenant=tenant, allocation=start.allocation)
            heapq.heappush(ends, (clock + job.expected_seconds, number, runs))
        if not ends or not any(queues.values()) or time.monotonic() > until:
            break
        clock, ended, job_ended = heapq.heappop(ends)
        del held[ended]
        share = counts[job_ended.tenant]
        counts[job_ended.tenant] = replace(share, running=max(0, share.running - 1))
    return {
        job.id: StartEstimate(
            position=place,
            reason=reasons.get(job.id, _WAITS_ITS_TURN),
            seconds=starts.get(job.id),
            is_impossible=job.id in impossible,
        )
        for waiting in jobs.values()
        for place, job in enumerate(waiting, start=1)
    }
