"""Cluster: what its dispatchers have written down of the nodes, without what is other tenants' business."""

from __future__ import annotations

from collections.abc import Sequence

from influencerai.domain.cluster import Cluster, ClusterDevice, ClusterJob, ClusterNode
from influencerai.scheduling.shortfall import least_request, ready_for
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.attempts import ActiveAttempt
from influencerai.store.nodes import NodeState
from influencerai.store.times import to_datetime


class ClusterService:
    """One tenant's view, per call."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._seconds = settings.lease_seconds
        self._threads = settings.job_threads

    async def show(self, tenant: str) -> Cluster:
        """The nodes that were seen lately, and what they hold."""
        async with self._store.read() as transaction:
            nodes = await transaction.nodes.seen(within_seconds=self._seconds)
            active = await transaction.attempts.active()
            workers = await transaction.workers.seen(within_seconds=self._seconds)
        return Cluster(nodes=shown_nodes(nodes, active, tenant=tenant, threads=self._threads), workers=len(workers))


def shown_nodes(
    nodes: Sequence[NodeState], active: Sequence[ActiveAttempt], *, threads: int, tenant: str | None = None
) -> tuple[ClusterNode, ...]:
    """The nodes with what attempts hold of them; of the jobs, only those of the tenant.

    A training on cores holds as many as `threads` says.
    """
    here: dict[str, list[ActiveAttempt]] = {}
    for attempt in active:
        here.setdefault(attempt.allocation.node, []).append(attempt)
    least = least_request((seen.node for seen in nodes), threads=threads)
    return tuple(_shown(seen, here.get(seen.node.id, []), tenant, takes=ready_for(seen.node, least)) for seen in nodes)


def _shown(seen: NodeState, here: Sequence[ActiveAttempt], tenant: str | None, *, takes: str) -> ClusterNode:
    node = seen.node
    own = [attempt for attempt in here if attempt.tenant_id == tenant]
    return ClusterNode(
        id=node.id,
        name=node.name,
        state="draining" if seen.is_draining else "ready" if seen.problem is None else "not ready",
        problem=seen.problem,
        ready_for=takes if seen.problem is None and not seen.is_draining else None,
        cpus=node.cpus,
        cpus_held=sum(attempt.allocation.cpus for attempt in here),
        memory_gb=node.memory_gb,
        memory_held_gb=round(sum(attempt.allocation.memory_gb for attempt in here), 1),
        devices=tuple(
            ClusterDevice(
                name=device.name,
                memory_gb=device.memory_gb,
                held=sum(attempt.allocation.devices.get(index, 0.0) for attempt in here),
            )
            for index, device in enumerate(node.devices)
        ),
        jobs=tuple(
            ClusterJob(
                id=attempt.job_id,
                attempt=attempt.fence,
                started_at=to_datetime(attempt.started_at),
                devices=attempt.allocation.device_count,
            )
            for attempt in own
        ),
        other_jobs=len(here) - len(own),
    )
