"""Dispatcher: decides which pending jobs start on which nodes, and has Ray start them.

Several may run at once: each decision is one transaction, and a job is claimed in it. Ray launches and nothing more;
that an attempt is lost, only its lease says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from influencerai.cluster import task
from influencerai.cluster.decisions import Decisions
from influencerai.cluster.nodes import ClusterNodes
from influencerai.cluster.planner import plan_needs
from influencerai.errors import FencedOffError, InfluencerAIError
from influencerai.planning.placement import Holding
from influencerai.planning.ways import Way
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.queue import Lease
from influencerai.store.returns import RetryRules, Return

_PLANNED_AT_ONCE = 100
_REFRESH_SECONDS = 1.0
_EXPLAIN_SECONDS = 3.0
_OUTAGE_SECONDS = 1.0
_SET_ASIDE_SECONDS = 30.0
_train: Any = ray.remote(max_retries=0, max_calls=0)(task.train)
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Launched:
    """An attempt that was given to Ray."""

    lease: Lease
    node: str
    reference: Any
    at: float
    has_begun: bool = False


class Dispatcher:
    """One of the cluster's, in the process that has joined it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(settings.database_url)
        self._nodes = ClusterNodes(settings, self._store)
        self._decisions = Decisions(settings)
        self._retries = RetryRules.of(settings)
        self._launched: dict[tuple[str, int], _Launched] = {}
        self._refreshed = self._explained = -_EXPLAIN_SECONDS

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until `stopping` is set, then have this dispatcher's jobs saved and given back.

        Raises:
            SchemaError: the database is not of this version.
        """
        await self._store.database.check()
        try:
            while not stopping.is_set():
                pause = self._settings.poll_seconds
                try:
                    await self._round()
                except (InfluencerAIError, OSError) as error:
                    _log.warning("The dispatcher waits: %s", error)
                    pause = max(_OUTAGE_SECONDS, pause)
                except Exception:
                    _log.exception("The dispatcher failed and goes on.")
                    pause = max(_OUTAGE_SECONDS, pause)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause)
            await self._end_all()
        finally:
            await self._nodes.close()
            await self._store.database.close()

    async def _round(self) -> None:
        now = time.monotonic()
        if now - self._refreshed >= _REFRESH_SECONDS:
            before = {*self._nodes.ready}
            await self._nodes.refresh()
            if {*self._nodes.ready} - before:
                async with self._store.write() as transaction:
                    await transaction.turns.take_up_again()
            await self._drain()
            self._refreshed = now
        await self._plan()
        await self._start()
        await self._follow()
        if now - self._explained >= _EXPLAIN_SECONDS:
            await self._explain()
            self._explained = now

    async def _plan(self) -> None:
        """Say of new jobs what they need."""
        async with self._store.read() as transaction:
            unplanned = await transaction.turns.unplanned(limit=_PLANNED_AT_ONCE)
        if not unplanned:
            return
        found = {job.id: await asyncio.to_thread(plan_needs, job, self._settings) for job in unplanned}
        async with self._store.write() as transaction:
            for id, needs in sorted(found.items()):
                await transaction.turns.set_needs(id, needs)

    async def _start(self) -> None:
        """Decide, claim, launch. The usual answer, that nothing starts, locks nothing."""
        async with self._store.read() as transaction:
            if not await self._decisions.has_start(transaction, self._nodes.ready):
                return
        async with self._store.write() as transaction:
            started = await self._decisions.start(transaction, self._nodes.ready)
        for start in started:
            try:
                self._launch(start.lease, start.held, start.way)
            except Exception as error:  # of Ray's, of many kinds: the others are claimed too
                _log.exception("Ray does not take attempt %s.", start.lease.fence, extra={"job_id": start.lease.job_id})
                await self._give_back(start.lease, "broken", f"Ray does not take it ({type(error).__name__}).")

    def _launch(self, lease: Lease, held: Holding, way: Way) -> None:
        pinned = _train.options(
            name=f"train {lease.job_id}",
            num_cpus=held.cpus,
            num_gpus=sum(held.devices.values()),
            memory=int(held.memory_gb * 1e9),
            label_selector=self._nodes.labels(held.node) if held.devices else {},
            scheduling_strategy=NodeAffinitySchedulingStrategy(held.node, soft=False),
        )
        node = self._nodes.ready[held.node]
        accelerator = node.devices[min(held.devices)].name if held.devices else None
        is_pretended = held.node in self._nodes.pretended
        document = self._settings.worker_document()
        reference = pinned.remote(document, lease, held, way, accelerator, is_pretended)
        self._launched[lease.job_id, lease.fence] = _Launched(
            lease=lease, node=held.node, reference=reference, at=time.monotonic()
        )
        _log.info("Attempt %s starts on %s.", lease.fence, node.name, extra={"job_id": lease.job_id})

    async def _follow(self) -> None:
        """Let go of attempts that have ended; give back the jobs of those that never begin."""
        if not self._launched:
            return
        references = [launched.reference for launched in self._launched.values()]
        done, _ = await asyncio.to_thread(ray.wait, references, num_returns=len(references), timeout=0)
        async with self._store.read() as transaction:
            begun = {(item.job_id, item.fence): item.has_begun for item in await transaction.attempts.active()}
        for key, launched in list(self._launched.items()):
            launched.has_begun = launched.has_begun or begun.get(key, False)
            if launched.reference in done:
                del self._launched[key]
                how, reason = await _ending(launched.reference)
                if how == "lost":
                    self._nodes.doubt(launched.node)
                if begun.get(key) is False:
                    await self._give_back(launched.lease, how, reason)
            elif not launched.has_begun and time.monotonic() - launched.at > self._settings.start_seconds / 2:
                del self._launched[key]
                await asyncio.to_thread(ray.cancel, launched.reference, force=True)
                self._nodes.doubt(launched.node)
                await self._give_back(launched.lease, "lost", "The node did not begin with it in time.")

    async def _give_back(self, lease: Lease, how: Return, reason: str) -> None:
        """Where nothing has begun, nothing has to be waited for."""
        with suppress(FencedOffError):
            async with self._store.write() as transaction:
                await transaction.queue.give_back(lease, how, error=reason, retries=self._retries)

    async def _drain(self) -> None:
        """Have the attempts on nodes that are to end save their state."""
        if not self._nodes.draining:
            return
        async with self._store.read() as transaction:
            found = await transaction.attempts.active()
        leaving = [(item.job_id, item.fence) for item in found if item.held.node in self._nodes.draining]
        if leaving:
            async with self._store.write() as transaction:
                await transaction.queue.recall(leaving)

    async def _end_all(self) -> None:
        """Have what this dispatcher has launched save its state, and wait for it: with this process it would die."""
        deadline = time.monotonic() + self._settings.cancel_grace_seconds + _REFRESH_SECONDS
        with suppress(InfluencerAIError):
            async with self._store.write() as transaction:
                await transaction.queue.recall([*self._launched])
        while self._launched and time.monotonic() < deadline:
            await asyncio.sleep(self._settings.poll_seconds)
            with suppress(InfluencerAIError):
                await self._follow()

    async def _explain(self) -> None:
        """Write why jobs wait, their places and when they are likely to start."""
        async with self._store.read() as transaction:
            work_out = await self._decisions.forecast(transaction, self._nodes.ready)
        if found := await asyncio.to_thread(work_out):
            async with self._store.write() as transaction:
                await transaction.turns.explain(found)
                impossible = [id for id, said in found.items() if said.is_impossible]
                await transaction.turns.set_aside(impossible, seconds=_SET_ASIDE_SECONDS)


async def _ending(reference: Any) -> tuple[Return, str]:
    """How a task that is over has ended, as Ray knows it."""
    try:
        await asyncio.wrap_future(reference.future())
    except RayTaskError as error:
        return "broken", f"The node could not begin with it: {str(error).strip().splitlines()[-1]}"
    except RayError as error:
        _log.warning("A task has ended with %s: %s", type(error).__name__, error)
        return "lost", "The node was lost."
    return "broken", "It ended before it had begun."
