"""A site for tests: a workplace whose jobs train on a real Ray cluster of several nodes, all on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from ray.cluster_utils import Cluster

from influencerai.cluster.joining import GPU_MEMORY_LABEL, NAME_LABEL, PRETENDED_LABEL
from influencerai.planning.placement import Capacity, Holding
from influencerai.store.attempts import ActiveAttempt
from influencerai.store.nodes import NodeSeen
from influencerai.worker.child import LOG_FILE
from tests.worker.workplace import Workplace, marked

_REPOSITORY = Path(__file__).parents[2]
_SEEN_SECONDS = 10.0
LOOPBACK = "127.0.0.2"
"""An address of this machine alone; for 127.0.0.1 Ray would put the one that others reach it by."""


class Site(Workplace):
    """One root, one database, one cluster; nodes join and are struck, dispatchers are started and struck."""

    def __init__(self, folder: Path, url: str, portal: BlockingPortal, **settings: Any) -> None:
        super().__init__(folder, url, portal, **{"device": "auto", **settings})
        self.log.touch()
        self._nodes: dict[str, Any] = {}
        self._joined: dict[str, subprocess.Popen[bytes]] = {}
        # It trains nothing: a cluster's head is none of its nodes here.
        self.cluster = Cluster(initialize_head=True, head_node_args={**self._node_args(), "num_cpus": 0})

    # Nodes

    def add_node(
        self, name: str, *, cpus: float = 1, memory_gb: float = 8, gpus: int = 0, gpu_gb: float = 80, gpu: str = "H100"
    ) -> None:
        """Let a node join, its GPUs only counted."""
        labels = {NAME_LABEL: name}
        if gpus:
            labels |= {GPU_MEMORY_LABEL: str(gpu_gb), PRETENDED_LABEL: "true", "ray.io/accelerator-type": gpu}
        arguments: dict[str, Any] = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "memory": int(memory_gb * 1e9),
            "labels": labels,
        }
        self._nodes[name] = self.cluster.add_node(**self._node_args(), **arguments)

    def join(self, name: str, *options: str, inside: Sequence[str] = (), **environment: str) -> None:
        """Let a node join by the command line; `inside` is what makes this machine look like another one."""
        program = str(Path(sys.executable).with_name("influencerai"))
        place = ["--head-address", self.cluster.address, "--host", LOOPBACK, "--name", name]
        with self.log.open("ab") as log:
            self._joined[name] = subprocess.Popen(
                [*inside, program, "node", "start", *place, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment(), **environment},
                start_new_session=True,
            )

    def ask_to_leave(self, name: str) -> subprocess.Popen[bytes]:
        """Send a node that has joined by the command line SIGTERM."""
        self._joined[name].send_signal(signal.SIGTERM)
        return self._joined[name]

    def kill_node(self, name: str) -> None:
        """End a node without a word, and all that runs there."""
        self.cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def node_id(self, name: str) -> str:
        return str(self._nodes[name].unique_id)

    def nodes(self) -> dict[str, NodeSeen]:
        """What the database says of the nodes, by name."""

        async def look(service: Any) -> Any:
            async with service.store.read() as transaction:
                return await transaction.nodes.seen(within_seconds=_SEEN_SECONDS)

        return {item.node.name: item for item in self.ask(look)}

    def wait_for_nodes(self, *names: str) -> None:
        """Return when these nodes may train."""

        def ready() -> bool:
            seen = self.nodes()
            return all(name in seen and seen[name].problem is None for name in names)

        self.until(ready)

    def wait_for_problem(self, name: str, reason: str) -> None:
        """Return when this is what keeps the node from training."""

        def told() -> bool:
            seen = self.nodes().get(name)
            return seen is not None and reason in (seen.problem or "")

        self.until(told)

    def active(self) -> list[ActiveAttempt]:
        """What attempts hold now, by the database."""

        async def look(service: Any) -> Any:
            async with service.store.read() as transaction:
                return await transaction.attempts.holdings()

        found: list[ActiveAttempt] = self.ask(look)
        return found

    def where(self, id: str) -> list[str]:
        """The nodes of the attempts at a job, in order."""
        return [row["node"] for row in self.history(id).attempts]

    def training(self, id: str) -> int:
        """The process id of the job's training."""
        return self.trainings(id)[0]

    def trainings(self, id: str) -> list[int]:
        """The process ids of the job's training: they alone write to its log."""
        log = str(self.run_dir(id) / LOG_FILE)
        found: list[int] = []

        def look() -> bool:
            for pid in marked(self.mark):
                with suppress(OSError):
                    if Path(f"/proc/{pid}/fd/2").readlink() == Path(log):
                        found.append(pid)
            return bool(found)

        self.until(look, id=id)
        return sorted(found)

    # Dispatchers

    def hire(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            dispatcher = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.dispatching"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**self.environment(), "RAY_ADDRESS": self.cluster.address},
                cwd=_REPOSITORY,
            )
        assert dispatcher.stdin is not None
        dispatcher.stdin.write(json.dumps(self.settings.to_document()).encode() + b"\n")
        dispatcher.stdin.flush()
        return dispatcher

    def dismiss(self) -> None:
        for node in self._joined.values():
            node.kill()
            node.wait()
        self.cluster.shutdown()  # type: ignore[no-untyped-call]
        super().dismiss()

    # Checks

    def check_never_overcommitted(self) -> None:
        """Assert, from the attempts' own records, that no node was given more than it has at any moment."""
        held = self.ask(_all_holdings)
        nodes = [item.node for item in self.nodes().values()]
        moments = sorted({moment for begun, _, _ in held for moment in [begun]})
        for moment in moments:
            now = [holding for begun, ended, holding in held if begun <= moment < ended]
            assert not Capacity(nodes, now).is_overcommitted, now

    def _node_args(self) -> dict[str, Any]:
        return {
            "node_ip_address": LOOPBACK,
            "include_dashboard": False,
            "object_store_memory": 80 * 2**20,
            "env_vars": self.environment(),
        }


async def _all_holdings(service: Any) -> list[tuple[int, int, Holding]]:
    """(Begun, ended, holding) of every attempt that a node has begun."""
    from sqlalchemy import select

    from influencerai.store.schema import attempts

    async with service.store.database.read() as connection:
        rows = (await connection.execute(select(attempts).where(attempts.c.begun_at.is_not(None)))).all()
    return [(row.begun_at, row.ended_at or 2**62, Holding.from_document(row.held)) for row in rows]


@contextmanager
def site(folder: Path, url: str, **settings: Any) -> Iterator[Site]:
    """A site until the end of the block; then none of its processes is left."""
    folder.mkdir(parents=True, exist_ok=True)
    with start_blocking_portal() as portal:
        place = Site(folder, url, portal, **settings)
        place.ask(lambda service: service.open())
        try:
            yield place
        finally:
            place.dismiss()
            place.ask(lambda service: service.close())
