"""A site for tests: a workplace whose jobs train on a real Ray cluster of several nodes, all on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal
from ray.cluster_utils import Cluster

from influencerai.cluster.joining import GPU_MEMORY_LABEL, NAME_LABEL, PRETENDED_LABEL
from influencerai.job_process.supervisor import LOG_FILE
from influencerai.scheduling.placement import Node
from influencerai.store.attempts import ActiveAttempt
from influencerai.store.nodes import NodeState
from tests.histories import overcommitted
from tests.worker.workplace import Workplace, children, marked, opened, strike

_REPOSITORY = Path(__file__).parents[2]
_SEEN_SECONDS = 10.0
_EVER_SECONDS = 10.0**6
_START_SECONDS = 24.0
"""A node has half of it to begin with an attempt, and an attempt on a node that hangs is lost so soon."""
LOOPBACK = "127.0.0.2"
"""An address of this machine alone; for 127.0.0.1 Ray would put the one that others reach it by."""


class Site(Workplace):
    """One root, one database, one cluster; nodes join and are struck, dispatchers are started and struck."""

    def __init__(self, folder: Path, url: str, portal: BlockingPortal, **settings: Any) -> None:
        super().__init__(folder, url, portal, **{"device": "auto", "start_seconds": _START_SECONDS, **settings})
        self.log.touch()
        self._nodes: dict[str, Any] = {}
        self._joined: dict[str, subprocess.Popen[bytes]] = {}
        self.cluster = self._found()

    # Nodes

    def add_node(
        self, name: str, *, cpus: float = 1, memory_gb: float = 8, gpus: int = 0, gpu_gb: float = 80, gpu: str = "H100"
    ) -> None:
        """Have a node join, its GPUs only counted; returns before it has."""
        labels = {NAME_LABEL: name}
        if gpus:
            labels |= {GPU_MEMORY_LABEL: str(gpu_gb), PRETENDED_LABEL: "true", "ray.io/accelerator-type": gpu}
        arguments: dict[str, Any] = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "memory": int(memory_gb * 1e9),
            "labels": labels,
        }
        self._nodes[name] = self.cluster.add_node(wait=False, **self._node_args(), **arguments)

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

    def see_off(self) -> list[str]:
        """Names of the nodes that have left, having joined by the command line; told once."""
        gone = [name for name, process in self._joined.items() if process.poll() is not None]
        for name in gone:
            del self._joined[name]
        return gone

    def kill_node(self, name: str) -> None:
        """End a node without a word, and all that runs there."""
        if (joined := self._joined.pop(name, None)) is not None:
            for pid in descendants(joined.pid):
                strike(pid)
            joined.wait()
            return
        self.cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def collapse(self) -> None:
        """End the head, every node and every dispatcher without a word."""
        for name in (*self._nodes, *self._joined):
            self.kill_node(name)
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        for worker in self.workers:
            worker.kill()
            worker.wait()

    def rebuild(self) -> None:
        """A new head, over the same root and database; nothing else."""
        self.cluster.shutdown()
        self.cluster = self._found()

    def node_id(self, name: str) -> str:
        return str(self._nodes[name].unique_id)

    def nodes(self) -> dict[str, NodeState]:
        """What the database says of the nodes, by name."""

        async def look(service: Any) -> Any:
            async with service.store.read() as transaction:
                return await transaction.nodes.seen(within_seconds=_SEEN_SECONDS)

        return {item.node.name: item for item in self.ask(look)}

    def actors(self) -> list[str]:
        """Classes of the actors that live in the cluster."""
        table: Mapping[Any, Mapping[str, Any]] = self.cluster.global_state.actor_table(None)
        return sorted(str(row["ActorClassName"]) for row in table.values() if row["State"] != "DEAD")

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
                return await transaction.attempts.active()

        found: list[ActiveAttempt] = self.ask(look)
        return found

    def where(self, id: str) -> list[str]:
        """The nodes of the attempts at a job, in order."""
        return [row["node"] for row in self.history(id).attempts]

    def training(self, id: str) -> int:
        """The process id of the job's training."""
        return self.trainings(id)[0]

    def trainings(self, id: str) -> list[int]:
        """The process ids of the job's training."""
        self.until(lambda: id in self.all_trainings(), id=id)
        return self.all_trainings()[id]

    def all_trainings(self) -> dict[str, list[int]]:
        """The process ids of every training by its job's id: they alone write to its log."""
        found: dict[str, list[int]] = {}
        for pid in sorted(marked(self.mark)):
            with suppress(OSError):
                log = Path(f"/proc/{pid}/fd/2").readlink()
                if log.name == LOG_FILE:
                    found.setdefault(log.parent.name, []).append(pid)
        return found

    def supervisor(self, id: str) -> int:
        """The process id of Ray's worker that watches over the job's training."""
        return parent(parent(self.training(id)))

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
        self.cluster.shutdown()
        super().dismiss()

    # Checks

    def check_idle(self) -> None:
        """Assert that nothing trains, and that no process and no actor has outlived what it was started by."""
        self.until(lambda: not self.all_trainings(), seconds=20)
        self.until(lambda: all(map(is_agent, {*marked(self.mark)} - {*descendants(os.getpid())})), seconds=10)
        assert self.actors() == []

    def check_never_overcommitted(self) -> None:
        """Assert, from the attempts' own records, that no node was given more than it has at any moment."""
        found = overcommitted(self.ask(_all_attempts), self.every_node())
        assert not found, found

    def every_node(self) -> list[Node]:
        """All nodes that were ever seen."""

        async def look(service: Any) -> Any:
            async with service.store.read() as transaction:
                return await transaction.nodes.seen(within_seconds=_EVER_SECONDS)

        return [item.node for item in self.ask(look)]

    def _found(self) -> Any:
        """A cluster's head, which trains nothing: it is none of the nodes here."""
        return Cluster(initialize_head=True, head_node_args={**self._node_args(), "num_cpus": 0})

    def _node_args(self) -> dict[str, Any]:
        return {
            "node_ip_address": LOOPBACK,
            "include_dashboard": False,
            "object_store_memory": 80 * 2**20,
            "env_vars": self.environment(),
        }


async def _all_attempts(service: Any) -> list[dict[str, Any]]:
    """The rows of all attempts at all jobs."""
    from sqlalchemy import select

    from influencerai.store.schema import attempts

    async with service.store.database.read() as connection:
        return [dict(row._mapping) for row in await connection.execute(select(attempts))]


def is_agent(pid: int) -> bool:
    """Whether it is an agent of Ray's: those of a node that died with its head look for the head for a minute more."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"ray::DashboardAgent", b"ray::RuntimeEnvAgent"))
    return True


def parent(pid: int) -> int:
    """The process id of the parent of a process; 0 where it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(other for child in children(pid) for other in descendants(child))]


def site(folder: Path, url: str, **settings: Any) -> AbstractContextManager[Site]:
    """A workplace with a cluster, until the end of the block."""
    return opened(Site, folder, url, **settings)
