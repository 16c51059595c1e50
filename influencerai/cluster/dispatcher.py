"""Dispatcher: decides which pending jobs start on which nodes, and has Ray start them.

Several may run at once: each decision is one transaction, and a job is claimed in it. Ray launches and nothing more;
that an attempt is lost, only its lease says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from influencerai.cluster import task
from influencerai.cluster.decisions import Decisions, View
from influencerai.cluster.nodes import ClusterNodes, within_seconds
from influencerai.domain.problem import Problem
from influencerai.errors import FencedOffError, InfluencerAIError, SchemaError
from influencerai.preflight.job_resources import UNPLANNABLE, plan_resources
from influencerai.scheduling.placement import Allocation
from influencerai.scheduling.resource_options import ResourceOption
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.pending_jobs import PendingJob
from influencerai.store.queue import Lease
from influencerai.store.requeue import RetryRules
from influencerai.worker.cleanup import RunCleanup
from influencerai.worker.lease import RENEWALS_PER_LEASE

_PLANNED_AT_ONCE = 100
_REFRESH_SECONDS = 1.0
_EXPLAIN_SECONDS = 3.0
_OUTAGE_SECONDS = 1.0
_ASIDE_SECONDS = 30.0
_MOST_ASIDE = 1000
_UNBEGUN_SECONDS = 10.0
_SAVE_SECONDS = 5.0
_train: Any = ray.remote(max_retries=0, max_calls=0)(task.train)
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Launched:
    """An attempt that was given to Ray."""

    lease: Lease
    node: str
    reference: Any
    at: float
    active_at: float
    """When the database last spoke of it."""
    has_begun: bool = False


class Dispatcher:
    """One of the cluster's, in the process that has joined it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(settings.database_url)
        self._nodes = ClusterNodes(settings, self._store)
        self._decisions = Decisions(settings)
        self._run_cleanup = RunCleanup(self._store, settings)
        self._launched: dict[tuple[str, int], _Launched] = {}
        self._aside: dict[str, float] = {}
        self._refreshed = self._explained = -_EXPLAIN_SECONDS

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until `stopping` is set, then have this dispatcher's jobs saved and given back.

        Raises:
            SchemaError: the database is not of this version.
        """
        is_checked = False
        try:
            while not stopping.is_set():
                pause = self._settings.poll_seconds
                try:
                    if not is_checked:
                        await self._store.database.check()
                        is_checked = True
                    await self._round()
                except SchemaError:
                    raise
                except (InfluencerAIError, OSError) as error:
                    _log.warning("The dispatcher waits: %s", error)
                    pause = max(_OUTAGE_SECONDS, pause)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause)
            await self._end_all()
        finally:
            await self._nodes.close()
            await self._store.database.close()

    async def _round(self) -> None:
        """Everything that is due; what fails by our own fault keeps nothing else from being done.

        Raises:
            InfluencerAIError: the database or Ray does not answer.
        """
        now = time.monotonic()
        if now - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = now
            await _guarded(self._refresh)
        for work in (self._rescue, self._plan, self._start, self._follow, self._run_cleanup.remove):
            await _guarded(work)
        if now - self._explained >= _EXPLAIN_SECONDS:
            self._explained = now
            await _guarded(self._explain)

    async def _refresh(self) -> None:
        before = {*self._nodes.ready}
        await self._nodes.refresh()
        if {*self._nodes.ready} - before:
            self._aside.clear()
        await self._drain()

    def _view(self) -> View:
        now = time.monotonic()
        self._aside = {id: until for id, until in self._aside.items() if until > now}
        return View(ready=self._nodes.ready, expected=self._nodes.expected, aside=self._aside.keys())

    async def _rescue(self) -> None:
        """Take back jobs whose attempts were lost."""
        async with self._store.read() as transaction:
            if not await transaction.pending_jobs.has_lost():
                return
        async with self._store.write() as transaction:
            await transaction.queue.rescue(retries=RetryRules.of(self._settings))

    async def _plan(self) -> None:
        """Say of new jobs what they need."""
        async with self._store.read() as transaction:
            unplanned = await transaction.pending_jobs.unplanned(limit=_PLANNED_AT_ONCE)
        if not unplanned:
            return
        found = {}
        for job in unplanned:
            try:
                found[job.id] = await asyncio.to_thread(_options_of, job, self._settings)
            except Exception:  # such as a plan of another version's: the others are planned
                _log.exception("The job cannot be planned.", extra={"job_id": job.id})
                found[job.id] = UNPLANNABLE
        async with self._store.write() as transaction:
            for id, options in sorted(found.items()):
                await transaction.pending_jobs.set_resource_options(id, options)

    async def _start(self) -> None:
        """Decide, claim, launch. The usual answer, that nothing starts, locks nothing."""
        view = self._view()
        async with self._store.read() as transaction:
            looked = await self._decisions.look(transaction, view)
        if not looked.starts:
            return
        async with self._store.write() as transaction:
            started = await self._decisions.start(transaction, view, looked)
        for start in started:
            try:
                self._launch(start.lease, start.allocation, start.option)
            except Exception as error:  # of Ray's, of many kinds: the others are claimed too
                _log.exception("Ray does not take attempt %s.", start.lease.fence, extra={"job_id": start.lease.job_id})
                await self._give_back(start.lease, f"Ray does not take it ({type(error).__name__}).")

    def _launch(self, lease: Lease, allocation: Allocation, option: ResourceOption) -> None:
        pinned = _train.options(
            name=f"train {lease.job_id}",
            num_cpus=allocation.cpus,
            num_gpus=sum(allocation.devices.values()),
            memory=int(allocation.memory_gb * 1e9),
            label_selector=self._nodes.labels(allocation.node) if allocation.devices else {},
            scheduling_strategy=NodeAffinitySchedulingStrategy(allocation.node, soft=False),
        )
        node = self._nodes.ready[allocation.node]
        is_pretended = allocation.node in self._nodes.pretended
        document = self._settings.worker_document()
        reference = pinned.remote(document, lease, allocation, option, node, is_pretended)
        now = time.monotonic()
        self._launched[lease.job_id, lease.fence] = _Launched(
            lease=lease, node=allocation.node, reference=reference, at=now, active_at=now
        )
        _log.info("Attempt %s starts on %s.", lease.fence, node.name, extra={"job_id": lease.job_id})

    async def _follow(self) -> None:
        """Let go of attempts that have ended; give back the jobs of those that never begin."""
        if not self._launched:
            return
        references = [launched.reference for launched in self._launched.values()]
        done, _ = await within_seconds(partial(ray.wait, references, num_returns=len(references), timeout=0))
        async with self._store.read() as transaction:
            active = {(item.job_id, item.fence): item.has_begun for item in await transaction.attempts.active()}
        now = time.monotonic()
        for key, launched in list(self._launched.items()):
            if key in active:
                launched.active_at = now
            launched.has_begun = launched.has_begun or active.get(key, False)
            if launched.reference in done:
                del self._launched[key]
                if reason := await _failure(launched.reference):
                    self._nodes.suspect(launched.node)
                if active.get(key) is False:
                    await self._give_back(launched.lease, reason or "It ended before it had begun.")
            elif not launched.has_begun and now - launched.at > self._settings.start_seconds / 2:
                del self._launched[key]
                self._nodes.suspect(launched.node)
                await self._give_back(launched.lease, "The node did not begin with it in time.")
                await self._cancel(launched)
            elif now - launched.active_at > self._settings.start_seconds:
                del self._launched[key]  # its attempt has ended long ago, and it still holds a part of the node
                await self._cancel(launched)

    async def _cancel(self, launched: _Launched) -> None:
        with suppress(InfluencerAIError):
            await within_seconds(partial(ray.cancel, launched.reference, force=True))

    async def _give_back(self, lease: Lease, reason: str) -> None:
        """Where nothing has begun, nothing has to be waited for; else the lease decides."""
        problem = Problem(reason, "unbegun", "It is tried again on another node, or later on this one.")
        try:
            async with self._store.write() as transaction:
                await transaction.queue.requeue_unbegun(lease, problem=problem, pause_seconds=_UNBEGUN_SECONDS)
        except FencedOffError:
            pass
        except InfluencerAIError as error:
            _log.warning("The job waits for its lease to expire: %s", error, extra={"job_id": lease.job_id})

    async def _drain(self) -> None:
        """Have the attempts on nodes that are to end save their state."""
        if not self._nodes.draining:
            return
        async with self._store.read() as transaction:
            found = await transaction.attempts.active()
        leaving = [(item.job_id, item.fence) for item in found if item.allocation.node in self._nodes.draining]
        if leaving:
            async with self._store.write() as transaction:
                await transaction.queue.preempt(leaving)

    async def _end_all(self) -> None:
        """Have what this dispatcher has launched save its state, and wait for it: with this process it would die."""
        deadline = time.monotonic() + end_seconds(self._settings)
        with suppress(InfluencerAIError):
            async with self._store.write() as transaction:
                await transaction.queue.preempt([*self._launched])
        while self._launched and time.monotonic() < deadline:
            await asyncio.sleep(self._settings.poll_seconds)
            with suppress(InfluencerAIError, OSError):
                await _guarded(self._follow)

    async def _explain(self) -> None:
        """Write why jobs wait, their places and when they are likely to start."""
        async with self._store.read() as transaction:
            work_out = await self._decisions.estimate_starts(transaction, self._view())
        if found := await asyncio.to_thread(work_out):
            async with self._store.write() as transaction:
                await transaction.pending_jobs.explain(found)
            until = time.monotonic() + _ASIDE_SECONDS
            impossible = {id: until for id, said in found.items() if said.is_impossible}
            self._aside = dict(list((self._aside | impossible).items())[-_MOST_ASIDE:])


def end_seconds(settings: Settings) -> float:
    """Until a recalled attempt has heard of it with its next write, and has saved its state."""
    return settings.cancel_grace_seconds + settings.lease_seconds / RENEWALS_PER_LEASE + _SAVE_SECONDS


async def _guarded(work: Callable[[], Awaitable[None]]) -> None:
    """Do `work`; what goes wrong by our own fault is logged."""
    try:
        await work()
    except (InfluencerAIError, OSError):
        raise
    except Exception:
        _log.exception("The dispatcher failed and goes on.")


def _options_of(job: PendingJob, settings: Settings) -> str:
    return plan_resources(job.config, settings, plan=job.plan)


async def _failure(reference: Any) -> str | None:
    """Why a task that is over has failed, as Ray knows it; what it says of the cluster is for the log alone."""
    try:
        await asyncio.wrap_future(reference.future())
    except RayError as error:
        _log.warning("A task has ended with %s: %s", type(error).__name__, error)
        return f"The node could not begin with it ({type(error).__name__}); the log says more."
    return None
