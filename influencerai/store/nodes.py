"""Nodes: the cluster's machines as its dispatchers see them, for the next decision and for the operator's eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.scheduling.placement import Device, Node
from influencerai.store.dialect import insert_or_set, now
from influencerai.store.schema import nodes


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """A machine, and whether it trains."""

    node: Node
    problem: str | None = None
    """Why nothing is trained there."""
    is_draining: bool = False


class Nodes:
    """Rows of `nodes`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def note(self, found: Sequence[NodeState]) -> None:
        """Record that nodes were seen now."""
        rows = [
            {
                "id": item.node.id,
                "name": item.node.name,
                "facts": {
                    "cpus": item.node.cpus,
                    "memory_gb": item.node.memory_gb,
                    "devices": [asdict(device) for device in item.node.devices],
                },
                "problem": item.problem,
                "is_draining": item.is_draining,
            }
            for item in sorted(found, key=lambda item: item.node.id)  # two dispatchers lock in the same order
        ]
        if rows:
            statement = insert_or_set(self._connection, nodes, *rows[0], "seen_at").values(seen_at=now())
            await self._connection.execute(statement, rows)

    async def seen(self, *, within_seconds: float) -> Sequence[NodeState]:
        """Machines that were there in the last seconds, by name."""
        statement = select(nodes).where(nodes.c.seen_at >= now() - round(within_seconds * 1000))
        return [
            NodeState(
                node=Node(
                    id=row.id,
                    name=row.name,
                    cpus=row.facts["cpus"],
                    memory_gb=row.facts["memory_gb"],
                    devices=tuple(Device(**device) for device in row.facts["devices"]),
                ),
                problem=row.problem,
                is_draining=row.is_draining,
            )
            for row in await self._connection.execute(statement.order_by(nodes.c.name, nodes.c.id))
        ]

    async def forget(self, *, unseen_seconds: float) -> None:
        """Drop the rows of machines that have not been seen for long."""
        await self._connection.execute(delete(nodes).where(nodes.c.seen_at < now() - round(unseen_seconds * 1000)))
