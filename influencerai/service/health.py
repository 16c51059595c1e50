"""Health: whether what the service stands on is there, and how fast it answers."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from influencerai.domain.cluster import ClusterNode
from influencerai.domain.wire import WireModel
from influencerai.errors import InfluencerAIError
from influencerai.scheduling.shortfall import least_request, ready_for, shortfall
from influencerai.service.cluster import shown_nodes
from influencerai.service.disk import DiskSpace, disk_spaces
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.job_figures import JobFigures

_DEADLINE_SECONDS = 5.0
_LASTS_SECONDS = 1.0
_MIB = 2**20
_STATUSES = ("pending", "running", "completed", "failed", "cancelled")
_log = logging.getLogger(__name__)


class Check(WireModel):
    """One thing that the service stands on."""

    status: Literal["ok", "failed"]
    latency_ms: float
    detail: str = Field(default="", description="What was found, or what is wrong and what to do.")


class Readiness(WireModel):
    """Whether requests can be served."""

    status: Literal["ready", "not ready"]
    checks: dict[str, Check] = Field(
        default_factory=dict, description="In production for those alone who send a credential."
    )


@dataclass(frozen=True, kw_only=True)
class ServerFigures:
    """Figures for monitoring, the same from every server of a database."""

    statuses: dict[str, int]
    jobs: JobFigures
    workers: int
    nodes: tuple[ClusterNode, ...]
    disks: dict[str, DiskSpace]


class HealthService:
    """Checks, which report what is wrong and do not raise it, and figures over all tenants."""

    def __init__(self, store: Store, settings: Settings, *, needs_worker: bool) -> None:
        self._store = store
        self._settings = settings
        self._needs_worker = needs_worker
        self._disk_thread = ThreadPoolExecutor(1, thread_name_prefix="disk-check")
        """The default threads may all be at work for others; a file system that hangs holds this one only."""

        self._looking = asyncio.Lock()
        self._seen: tuple[float, Readiness] | None = None

    async def close(self) -> None:
        """Let go of the thread."""
        self._disk_thread.shutdown(wait=False, cancel_futures=True)

    async def readiness(self) -> Readiness:
        """Ask database, disk and runner, each with a deadline; at most once a second, however many ask."""
        async with self._looking:
            if self._seen is None or self._seen[0] <= time.monotonic():
                found = await self._look()
                self._seen = time.monotonic() + _LASTS_SECONDS, found
            return self._seen[1]

    async def _look(self) -> Readiness:
        names = {"database": self._database, "disk": self._disk, "runner": self._runner}
        found = await asyncio.gather(*(_checked(check) for check in names.values()))
        checks = dict(zip(names, found, strict=True))
        ready = all(check.status == "ok" for check in checks.values())
        return Readiness(status="ready" if ready else "not ready", checks=checks)

    async def figures(self) -> ServerFigures:
        """Figures over all tenants and servers, for monitoring.

        Raises:
            StoreError: the database does not answer.
        """
        seconds = self._settings.lease_seconds
        async with self._store.read() as transaction:
            found = await transaction.counts.overall("job")
            jobs = await transaction.usage.job_figures()
            workers = await transaction.workers.seen(within_seconds=seconds)
            nodes = await transaction.nodes.seen(within_seconds=seconds)
            active = await transaction.attempts.active()
        loop = asyncio.get_running_loop()
        return ServerFigures(
            statuses={name: found.get(name, 0) for name in _STATUSES},
            jobs=jobs,
            workers=len(workers),
            nodes=shown_nodes(nodes, active, threads=self._settings.job_threads),
            disks=await loop.run_in_executor(self._disk_thread, disk_spaces, self._settings),
        )

    async def _database(self) -> str:
        await self._store.database.ping()
        return "SQLite" if self._store.database.is_sqlite else "Postgres"

    async def _disk(self) -> str:
        root = self._settings.root
        usage = await asyncio.get_running_loop().run_in_executor(self._disk_thread, shutil.disk_usage, root)
        free = usage.free // _MIB
        if free < self._settings.min_free_mib:
            raise InfluencerAIError(f"{free} MiB are free.", remedy="Free space on the root's disk.")
        return f"{free} MiB are free."

    async def _runner(self) -> str:
        if not self._needs_worker:
            return "Jobs are trained by external workers."
        async with self._store.read() as transaction:
            workers = await transaction.workers.seen(within_seconds=self._settings.lease_seconds)
            nodes = await transaction.nodes.seen(within_seconds=self._settings.lease_seconds)
        ready = [seen.node for seen in nodes if seen.problem is None and not seen.is_draining]
        least = least_request(ready, threads=self._settings.job_threads)
        able = [node for node in ready if shortfall(node, least) is None]
        if able:
            return f"{len(able)} of {len(nodes)} nodes can train; the first one: {ready_for(able[0], least)}."
        if ready:
            lacks = "; ".join(f"node {node.name} is ready for {ready_for(node, least)}" for node in ready[:5])
            raise InfluencerAIError(
                f"No node is large enough for any training: {lacks}.",
                remedy="Start nodes with more cores, memory or GPUs.",
            )
        if workers:
            return f"{len(workers)} {'worker is' if len(workers) == 1 else 'workers are'} there."
        if nodes:
            raise InfluencerAIError("No node may train.", remedy="GET /cluster says what is missing on each.")
        raise InfluencerAIError(
            "Neither a worker nor a node of a cluster has been seen lately.", remedy="Look into the server's log."
        )


async def _checked(check: Callable[[], Awaitable[str]]) -> Check:
    begun = time.perf_counter()
    try:
        detail, ok = await asyncio.wait_for(check(), _DEADLINE_SECONDS), True
    except TimeoutError:
        detail, ok = f"There was no answer within {_DEADLINE_SECONDS:g} s.", False
    except (InfluencerAIError, OSError) as error:
        shown = error.public_message if isinstance(error, InfluencerAIError) else type(error).__name__
        remedy = getattr(error, "remedy", None)
        detail, ok = f"{shown} {remedy}" if remedy else shown, False
        _log.warning("A check of readiness failed: %s", error)
    latency = round((time.perf_counter() - begun) * 1000, 1)
    return Check(status="ok" if ok else "failed", latency_ms=latency, detail=detail)
