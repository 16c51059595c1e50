"""Placement: which node, and which of its GPUs, an attempt gets. A pure function of nodes and allocations."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Self

SHARES = 4
"""A GPU is shared in quarters."""
_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU."""

    name: str
    memory_gb: float


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine that may train."""

    id: str
    name: str
    cpus: float
    memory_gb: float
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResourceRequest:
    """The resources of a node that one attempt occupies while it runs."""

    cpus: float = 1
    memory_gb: float = 0
    """Of the node."""
    devices: int = 0
    """GPUs; with none it trains on the CPU."""
    device_gb: float = 0
    """Memory of each GPU."""
    is_shared: bool = False
    """Whether other attempts may use the rest of the GPU; only where the need for memory is known."""
    accelerator: str | None = None
    """Required part of the GPU's name, such as "H100"."""

    def suits(self, device: Device) -> bool:
        """Whether the idle device satisfies the request."""
        named = self.accelerator is None or self.accelerator.lower() in device.name.lower()
        return named and device.memory_gb + _EPSILON >= self.device_gb

    def share_of(self, device: Device) -> float:
        """The part of the device that is allocated, in quarters if it is shared."""
        if not self.is_shared or device.memory_gb <= 0:
            return 1.0
        return min(1.0, max(1, math.ceil(self.device_gb / device.memory_gb * SHARES - _EPSILON)) / SHARES)


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What an attempt holds on a node."""

    node: str
    cpus: float
    memory_gb: float
    devices: Mapping[int, float] = field(default_factory=dict)
    """The part held of each GPU, by its index on the node."""

    @property
    def device_count(self) -> float:
        """GPUs held; a job on the CPU counts as one device, since it holds cores of a node."""
        return sum(self.devices.values()) or 1.0

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    @lru_cache(maxsize=10_000)
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; cached: every decision reads the allocations of all attempts."""
        document = json.loads(text)
        return cls(**{**document, "devices": {int(index): part for index, part in document["devices"].items()}})


class Capacity:
    """Free cores, memory and GPUs of each node. It only shrinks, so a refused request is refused from then on.

    At 1000 nodes the answers that it keeps make a decision about a hundred times faster.
    """

    def __init__(
        self, nodes: Iterable[Node], allocations: Iterable[Allocation] = (), *, cordoned: Collection[str] = ()
    ) -> None:
        """`cordoned` are ids of nodes that get nothing now, but count as nodes of the cluster."""
        self._nodes = {node.id: node for node in nodes}
        self._cpus = {node.id: node.cpus for node in self._nodes.values()}
        self._memory = {node.id: node.memory_gb for node in self._nodes.values()}
        self._devices = {node.id: [1.0] * len(node.devices) for node in self._nodes.values()}
        self._closed = frozenset(cordoned)
        self._reserved: set[str] = set()
        # Capacity only shrinks: what was refused once is refused again.
        self._hopeless: set[ResourceRequest] = set()
        self._able: dict[ResourceRequest, list[Node]] = {}
        self._alike: dict[tuple[Any, ...], list[Node]] = {}
        for node in self._nodes.values():
            self._alike.setdefault((node.cpus, node.memory_gb, node.devices), []).append(node)
        for allocation in allocations:
            if allocation.node in self._nodes:
                self._take(allocation)
        self._with_free_device = {id: None for id, free in self._devices.items() if any(part > 0 for part in free)}

    def place(self, request: ResourceRequest) -> Allocation | None:
        """Best fit: allocate on the node with the least waste; None where no node has enough free."""
        if request in self._hopeless or any(_wants_more(request, less) for less in self._hopeless):
            return None
        best: tuple[tuple[float, float, float, str], Allocation] | None = None
        for id in tuple(self._with_free_device if request.devices else self._nodes):
            node = self._nodes[id]
            if id in self._reserved or id in self._closed or not self._has_room(id, request):
                continue
            allocation = self._fit(node, request)
            if allocation is None:
                continue
            waste = self._waste(node, request, allocation)
            if best is None or waste < best[0]:
                best = (waste, allocation)
        if best is None:
            self._hopeless.add(request)
            return None
        self._take(best[1])
        if not any(part > 0 for part in self._devices[best[1].node]):
            self._with_free_device.pop(best[1].node, None)
        return best[1]

    def could_ever(self, request: ResourceRequest) -> bool:
        """Whether some node could hold the request if it were idle."""
        return bool(self._able_nodes(request))

    @property
    def nodes(self) -> Collection[Node]:
        """All nodes, whatever is free on them."""
        return self._nodes.values()

    @property
    def reserved(self) -> int:
        """Number of reserved nodes."""
        return len(self._reserved)

    def reserve(self, request: ResourceRequest) -> str | None:
        """Reserve the node that is nearest to having the request free; returns its id.

        None where there is none, or half of the suitable nodes are reserved already.
        """
        able = [node for node in self._able_nodes(request) if node.id not in self._closed]
        free = [node for node in able if node.id not in self._reserved]
        if not free or (len(able) > 1 and len(able) - len(free) >= len(able) // 2):
            return None
        # Of nodes without a free GPU one is as good as another.
        near = [node for node in free if not request.devices or node.id in self._with_free_device] or free[:1]
        chosen = max(near, key=lambda node: (self._free(node, request), -len(node.devices), -node.cpus, node.id)).id
        self._reserved.add(chosen)
        return chosen

    @property
    def is_overcommitted(self) -> bool:
        """Whether the allocations on some node exceed what it has."""
        free = [
            *self._cpus.values(),
            *self._memory.values(),
            *(part for parts in self._devices.values() for part in parts),
        ]
        return any(value < -_EPSILON for value in free)

    def _able_nodes(self, request: ResourceRequest) -> list[Node]:
        """Nodes that could hold the request if they were idle; only one node of each kind is checked."""
        if request not in self._able:
            self._able[request] = [
                node for alike in self._alike.values() if _is_able(alike[0], request) for node in alike
            ]
        return self._able[request]

    def _has_room(self, id: str, request: ResourceRequest) -> bool:
        return self._cpus[id] + _EPSILON >= request.cpus and self._memory[id] + _EPSILON >= request.memory_gb

    def _fit(self, node: Node, request: ResourceRequest) -> Allocation | None:
        free = self._devices[node.id]
        wanted: list[tuple[float, float, int, float]] = []
        for index, device in enumerate(node.devices if request.devices else ()):
            share = request.share_of(device)
            if request.suits(device) and free[index] + _EPSILON >= share:
                wanted.append((free[index] - share, device.memory_gb, index, share))
        if len(wanted) < request.devices:
            return None
        chosen = {index: share for _, _, index, share in sorted(wanted)[: request.devices]}
        return Allocation(node=node.id, cpus=request.cpus, memory_gb=request.memory_gb, devices=chosen)

    def _waste(self, node: Node, request: ResourceRequest, allocation: Allocation) -> tuple[float, float, float, str]:
        """Unusable rest of GPU memory, free GPUs, free cores: the smallest is the best fit."""
        free = self._devices[node.id]
        unused = sum(
            node.devices[index].memory_gb * share - request.device_gb for index, share in allocation.devices.items()
        )
        return unused, sum(free) - sum(allocation.devices.values()), self._cpus[node.id] - allocation.cpus, node.id

    def _free(self, node: Node, request: ResourceRequest) -> float:
        """The part of the request that is free, from 0 to 1."""
        least = 1.0
        if request.devices:
            devices = self._devices[node.id]
            least = sum(sorted(devices)[-request.devices :]) / request.devices if len(devices) > 1 else devices[0]
        if request.cpus and self._cpus[node.id] < least * request.cpus:
            least = self._cpus[node.id] / request.cpus
        if request.memory_gb and self._memory[node.id] < least * request.memory_gb:
            least = self._memory[node.id] / request.memory_gb
        return least

    def _take(self, allocation: Allocation) -> None:
        self._cpus[allocation.node] -= allocation.cpus
        self._memory[allocation.node] -= allocation.memory_gb
        devices = self._devices[allocation.node]
        for index, share in allocation.devices.items():
            if index < len(devices):
                devices[index] -= share


def _wants_more(request: ResourceRequest, less: ResourceRequest) -> bool:
    """Whether every node that fits `request` also fits `less`."""
    return (
        request.cpus >= less.cpus
        and request.memory_gb >= less.memory_gb
        and request.devices >= less.devices
        and request.device_gb >= less.device_gb
        and request.is_shared == less.is_shared
        and less.accelerator in (None, request.accelerator)
    )


def _is_able(node: Node, request: ResourceRequest) -> bool:
    suitable = sum(request.suits(device) for device in node.devices) if request.devices else 0
    return (
        node.cpus + _EPSILON >= request.cpus
        and node.memory_gb + _EPSILON >= request.memory_gb
        and suitable >= request.devices
    )


def best_place(capacity: Capacity, options: Sequence[ResourceRequest]) -> tuple[int, Allocation] | None:
    """Place the first possible option; returns its index and the allocation.

    A later option, which trains slower, is used only where no node could ever hold an earlier one.
    """
    for index, request in enumerate(options):
        if not capacity.could_ever(request):
            continue
        allocation = capacity.place(request)
        return None if allocation is None else (index, allocation)
    return None
