"""Nodes: the machines of the Ray cluster, and which of them may train."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray._private.state import state
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from influencerai.cluster import task
from influencerai.cluster.joining import GPU_MEMORY_LABEL, NAME_LABEL, PRETENDED_LABEL
from influencerai.cluster.probe import MARKERS, Facts, differences, own_facts
from influencerai.errors import InfluencerAIError
from influencerai.scheduling.placement import Device, Node
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.nodes import NodeState

_ACCELERATOR_LABEL = "ray.io/accelerator-type"
_LOOK_AGAIN_SECONDS = 60.0
_LOOK_AGAIN_AFTER_PROBLEM_SECONDS = 10.0
_PROBE_SECONDS = 60.0
_WRITTEN_PER_LEASE = 4
_RAY_SECONDS = 15.0
_LEFTOVER_SECONDS = 3600.0
_BEING_LOOKED_AT = "It has just joined and is being looked at."
_SUSPECT = "It did not answer a moment ago and is being looked at again."
_probe: Any = ray.remote(max_retries=0, num_cpus=0)(task.probe)
_warm: Any = ray.remote(max_retries=0, num_cpus=0, max_calls=0)(task.warm)
_log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(kw_only=True)
class _Known:
    """What is known of one node."""

    probe: asyncio.Task[tuple[Facts, Facts]] | None = None
    facts: Facts | None = None
    name: str | None = None
    problem: str | None = _BEING_LOOKED_AT
    looked_at: float = -_LOOK_AGAIN_SECONDS
    is_warm: bool = False


class ClusterNodes:
    """What Ray says of its nodes, what they say of themselves, and the rows that everybody else reads."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._known: dict[str, _Known] = {}
        self._marker = f"server-{secrets.token_hex(8)}"
        self._labels: dict[str, Mapping[str, str]] = {}
        self._written: dict[str, NodeState] = {}
        self._written_at = -settings.lease_seconds
        self.ready: dict[str, Node] = {}
        """Nodes that may be given jobs, by id."""
        self.expected: dict[str, Node] = {}
        """Nodes of which that is not known at this moment."""
        self.draining: frozenset[str] = frozenset()
        """Ids of nodes that are to end: their jobs go on elsewhere."""
        self.pretended: frozenset[str] = frozenset()
        """Ids of nodes whose GPUs are only counted."""

    async def refresh(self) -> None:
        """Look who is there, have new ones looked at, and write down what is known.

        Raises:
            StoreError: the database does not answer.
            InfluencerAIError: Ray does not answer.
        """
        alive, draining = await within_seconds(_ask_ray)
        self._known = {id: known for id, known in self._known.items() if id in alive}
        self.draining = frozenset(draining)
        self._labels = {id: row["Labels"] for id, row in alive.items()}
        self.pretended = frozenset(id for id, labels in self._labels.items() if labels.get(PRETENDED_LABEL) == "true")
        nodes: dict[str, Node] = {}
        for id, row in alive.items():
            known = self._known.setdefault(id, _Known())
            await self._look(id, known)
            nodes[id] = _node(row, known.facts)
            known.name = nodes[id].name
        problems = {id: self._problem(id, node) for id, node in nodes.items()}
        stays = {id: node for id, node in nodes.items() if id not in draining}
        self.ready = {id: node for id, node in stays.items() if problems[id] is None}
        self.expected = {id: node for id, node in stays.items() if problems[id] in (_BEING_LOOKED_AT, _SUSPECT)}
        for id, node in self.ready.items():
            self._warm(id, node)
        await self._write_down(
            {id: NodeState(node=node, problem=problems[id], is_draining=id in draining) for id, node in nodes.items()}
        )

    def labels(self, id: str) -> dict[str, str]:
        """What a task for the node's GPUs selects it by, where Ray knows their kind."""
        accelerator = self._labels.get(id, {}).get(_ACCELERATOR_LABEL)
        return {_ACCELERATOR_LABEL: accelerator} if accelerator else {}

    def suspect(self, id: str) -> None:
        """Give the node nothing more until it has answered again: Ray takes a while to notice that one is dead."""
        if (node := self.ready.pop(id, None)) is not None:
            self.expected[id] = node
        if (known := self._known.get(id)) is not None:
            if known.probe is not None:  # it may have answered before that
                known.probe.cancel()
            known.probe, known.problem, known.looked_at = None, _SUSPECT, -_LOOK_AGAIN_SECONDS

    async def close(self) -> None:
        """Take back what is in the root, and what killed dispatchers have left there."""
        for known in self._known.values():
            if known.probe is not None:
                known.probe.cancel()
        await asyncio.to_thread(_sweep, self._settings.root / MARKERS, self._marker)

    async def _write_down(self, found: dict[str, NodeState]) -> None:
        """What has changed, and now and then everything, so that others see who is still there."""
        now = time.monotonic()
        is_due = now - self._written_at > self._settings.lease_seconds / _WRITTEN_PER_LEASE
        changed = [state for id, state in found.items() if is_due or self._written.get(id) != state]
        if changed:
            async with self._store.write() as transaction:
                await transaction.nodes.note(changed)
        self._written = found
        if is_due:
            self._written_at = now

    def _problem(self, id: str, node: Node) -> str | None:
        unknown = not all(0 < device.memory_gb < math.inf for device in node.devices)
        if self._known[id].problem is None and unknown:
            return f"The memory of its GPUs is not known: start the node with the label {GPU_MEMORY_LABEL}."
        return self._known[id].problem

    async def _look(self, id: str, known: _Known) -> None:
        """Begin to look at a node, or take what has been found."""
        if known.probe is not None:
            if known.probe.done():
                probe, known.probe = known.probe, None
                self._note(id, known, probe)
            return
        pause = _LOOK_AGAIN_SECONDS if known.problem is None else _LOOK_AGAIN_AFTER_PROBLEM_SECONDS
        if time.monotonic() - known.looked_at > pause:
            known.probe = asyncio.create_task(self._probe(id))

    async def _probe(self, id: str) -> tuple[Facts, Facts]:
        """What the node says of itself, and what this machine would."""
        folder, settings = self._settings.root / MARKERS, self._settings
        text, answer = secrets.token_hex(16), f"{self._marker}.{id}"
        marker = f"{answer}.asks"
        await asyncio.to_thread(_write, folder / marker, text)
        pinned = _probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False))
        ours = await asyncio.to_thread(own_facts, settings.models_dir)
        reference = pinned.remote(settings.worker_document(), marker, answer)
        try:
            facts: Facts = await asyncio.wait_for(_result(reference), _PROBE_SECONDS)
            problem = facts.problem or await asyncio.to_thread(_check_answer, folder / answer, text)
            return replace(facts, problem=problem), ours
        finally:
            with suppress(Exception):  # one that still runs would hold a process of Ray's
                await asyncio.to_thread(ray.cancel, reference, force=True)
            for name in (marker, answer):
                with suppress(OSError):
                    (folder / name).unlink(missing_ok=True)

    def _note(self, id: str, known: _Known, probe: asyncio.Task[tuple[Facts, Facts]]) -> None:
        known.looked_at = time.monotonic()
        before = known.problem
        try:
            known.facts, ours = probe.result()
            found = differences(known.facts, ours, needs_one_machine=self._store.database.is_sqlite)
            known.problem = " ".join(found) or None
        except TimeoutError:
            known.problem = f"It did not answer within {_PROBE_SECONDS:g} s."
        except OSError as error:
            known.problem = f"The server cannot write to its root: {error.strerror}."
        except Exception as error:  # whatever a node may answer, the others are looked at
            _log.warning("Node %s cannot be looked at: %s", known.name or id, error)
            kind = "It was lost" if isinstance(error, RayError) and not isinstance(error, RayTaskError) else None
            known.problem = f"{kind or 'InfluencerAI does not run there'} ({type(error).__name__}); the log says more."
        if known.problem != before:
            _log.info("Node %s: %s", known.name or id, known.problem or "it may train.")

    def _warm(self, id: str, node: Node) -> None:
        """Have the trainer imported where the node's first attempt will run; Ray keeps GPU tasks apart from others."""
        if self._known[id].is_warm:
            return
        self._known[id].is_warm = True
        some: dict[str, float] = {"num_gpus": 0.01} if node.devices else {}
        strategy = NodeAffinitySchedulingStrategy(id, soft=False)
        _warm.options(scheduling_strategy=strategy, **some).remote()


def _ask_ray() -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Living nodes that could train, and ids of those that are to end."""
    alive = {
        row["NodeID"]: row
        for row in ray.nodes()  # type: ignore[no-untyped-call]
        if row["Alive"] and (row["Resources"].get("CPU") or row["Resources"].get("GPU"))
    }
    return alive, {*state.get_draining_nodes()} & alive.keys()


def _node(row: Mapping[str, Any], facts: Facts | None) -> Node:
    resources, labels = row["Resources"], row["Labels"]
    count = int(resources.get("GPU", 0))
    found = facts.devices if facts else ()
    memory = labels.get(GPU_MEMORY_LABEL)
    devices = tuple(
        Device(
            name=labels.get(_ACCELERATOR_LABEL) or (found[index].name if index < len(found) else "GPU"),
            memory_gb=_number(memory) if memory else found[index].memory_gb if index < len(found) else 0.0,
        )
        for index in range(count)
    )
    name = labels.get(NAME_LABEL) or (row["NodeName"] if row["NodeName"] != row["NodeManagerAddress"] else None)
    return Node(
        id=row["NodeID"],
        name=name or row["NodeManagerHostname"],
        cpus=float(resources.get("CPU", 0)),
        memory_gb=math.floor(resources.get("memory", 0) / 1e8) / 10,  # more than Ray has, it does not give
        devices=devices,
    )


def _number(text: str) -> float:
    """A label's value; one that is no number is as if there was none."""
    try:
        return float(text)
    except ValueError:
        return 0.0


async def within_seconds(question: Callable[[], Answer], seconds: float = _RAY_SECONDS) -> Answer:
    """What Ray answers.

    Raises:
        InfluencerAIError: it does not answer in time; its calls wait for its head without end.
    """
    try:
        return await asyncio.wait_for(asyncio.to_thread(question), seconds)
    except TimeoutError as error:
        raise InfluencerAIError(
            f"Ray has not answered for {seconds:g} s.",
            remedy="Look whether the cluster's head lives; without it this process ends after a minute.",
        ) from error


async def _result(reference: Any) -> Any:
    return await asyncio.wrap_future(reference.future())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _sweep(folder: Path, own: str) -> None:
    with suppress(OSError):
        for path in folder.glob("server-*"):
            if path.name.startswith(own) or path.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                path.unlink(missing_ok=True)


def _check_answer(path: Path, text: str) -> str | None:
    try:
        same = path.read_text() == text
    except OSError:
        same = False
    return None if same else "What it writes to the root is not seen by the server: they have different folders."
