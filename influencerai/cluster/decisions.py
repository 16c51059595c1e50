"""Decisions: who starts where now, and what those are told who do not, from what the database says at one moment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from influencerai.preflight.job_resources import options_on
from influencerai.scheduling.fair_share import EXPECTED_SECONDS, FairShareRules, Start, WaitingJob, decide
from influencerai.scheduling.placement import Allocation, Capacity, Node
from influencerai.scheduling.resource_options import ResourceOption
from influencerai.scheduling.start_estimate import RunningJob, StartEstimate, estimate_starts
from influencerai.settings import Settings
from influencerai.store import Transaction
from influencerai.store.pending_jobs import ClaimRules
from influencerai.store.queue import Lease

_LOOKED_AT_PER_TENANT = 3
_EXPLAINED_PER_TENANT = 20


@dataclass(frozen=True, kw_only=True)
class Started:
    """A job that was claimed for a node."""

    lease: Lease
    allocation: Allocation
    option: ResourceOption


@dataclass(frozen=True, kw_only=True)
class Look:
    """Who would start, as seen at one moment."""

    number: int
    """Attempts that had ever been started then."""
    starts: Sequence[Start] = ()
    options: Mapping[str, tuple[ResourceOption, ...]] = field(default_factory=dict)
    """The ways to train those jobs, by id."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What a dispatcher knows of the cluster, and not from the database."""

    ready: Mapping[str, Node]
    """Nodes that may be given jobs, by id."""
    expected: Mapping[str, Node] = field(default_factory=dict)
    """Nodes that are not ready for a moment: a job is not trained in a slower way because of that."""
    aside: Collection[str] = ()
    """Jobs that no node could train a moment ago."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*self.ready.values(), *self.expected.values())

    @property
    def cordoned(self) -> Collection[str]:
        return self.expected.keys()


class Decisions:
    """What a dispatcher asks the database."""

    def __init__(self, settings: Settings) -> None:
        self._claims = ClaimRules.of(settings)
        self._rules = FairShareRules(running_per_tenant=settings.running_jobs_per_tenant)
        self._begin_seconds = max(settings.start_seconds, settings.lease_seconds)
        self._expected_seconds = EXPECTED_SECONDS
        """How long a job is likely to take, by those that have ended lately; renewed by `estimate_starts`."""

    async def look(self, transaction: Transaction, view: View) -> Look:
        """Who would start now; locks nothing."""
        number = await transaction.attempts.started()
        if not view.ready:
            return Look(number=number)
        waiting, options = await self._waiting(transaction, view, per_tenant=_LOOKED_AT_PER_TENANT)
        if not any(waiting.values()):
            return Look(number=number)
        shares = await transaction.pending_jobs.shares(waiting)
        capacity = Capacity(view.nodes, await transaction.attempts.allocations(), cordoned=view.cordoned)
        starts = decide(waiting, shares, capacity, rules=self._rules).starts
        return Look(number=number, starts=starts, options={start.job.id: options[start.job.id] for start in starts})

    async def start(self, transaction: Transaction, view: View, looked: Look) -> list[Started]:
        """Claim what starts now; nobody else decides meanwhile.

        What was seen before is still right when nobody has started anything since: else it is looked at again.
        """
        await transaction.pending_jobs.begin_decision()
        if looked.number != await transaction.attempts.started():
            looked = await self.look(transaction, view)
        found = []
        for start in looked.starts:
            taken = await transaction.queue.take(
                start.job.tenant,
                start.job.id,
                node=view.ready[start.allocation.node].name,
                allocation=start.allocation,
                seconds=self._begin_seconds,
                rules=self._claims,
            )
            if taken is not None:
                option = looked.options[start.job.id][start.option]
                found.append(Started(lease=taken[0], allocation=start.allocation, option=option))
        return found

    async def estimate_starts(self, transaction: Transaction, view: View) -> Callable[[], dict[str, StartEstimate]]:
        """What those are told who wait, to be worked out by whoever has the time.

        A dispatcher without a node to give says nothing: another one may have some.
        """
        if not view.ready:
            return dict
        self._expected_seconds = await transaction.attempts.usual_seconds() or EXPECTED_SECONDS
        waiting, _ = await self._waiting(transaction, view, per_tenant=_EXPLAINED_PER_TENANT)
        if not any(waiting.values()):
            return dict
        shares = await transaction.pending_jobs.shares(waiting)
        running = [
            RunningJob(
                tenant=item.tenant_id,
                allocation=item.allocation,
                seconds_left=self._expected_seconds if item.seconds_left is None else item.seconds_left,
            )
            for item in await transaction.attempts.active()
        ]
        return partial(estimate_starts, waiting, shares, view.nodes, running, rules=self._rules, cordoned=view.cordoned)

    async def _waiting(
        self, transaction: Transaction, view: View, *, per_tenant: int
    ) -> tuple[dict[str, list[WaitingJob]], dict[str, tuple[ResourceOption, ...]]]:
        """Each tenant's first planned jobs, and the ways to train them by id."""
        queued = await transaction.pending_jobs.waiting(self._claims, per_tenant=per_tenant, without=view.aside)
        has_gpus = any(node.devices for node in view.nodes)
        found: dict[str, list[WaitingJob]] = {}
        options: dict[str, tuple[ResourceOption, ...]] = {}
        for tenant, jobs in queued.items():
            found[tenant] = []
            for job in jobs:
                if job.options is None:
                    continue
                options[job.id] = options_on(job.options, has_gpus=has_gpus)
                waiting = WaitingJob(
                    id=job.id,
                    tenant=tenant,
                    options=tuple([option.request for option in options[job.id]]),
                    waited_seconds=job.waited_seconds,
                    expected_seconds=self._expected_seconds,
                )
                found[tenant].append(waiting)
        return found, options
