"""Shortfall: what an idle node lacks for a job, and what it can run at all, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from influencerai.scheduling.placement import Node, ResourceRequest

LEAST_MEMORY_GB = 3.5
"""Of the node, for the smallest base model: 3 GB for the training's process, and the model."""
LEAST_ON_GPU = ResourceRequest(cpus=2, memory_gb=LEAST_MEMORY_GB, devices=1, device_gb=1)
"""What the smallest training on a GPU needs."""
_MOST_NODES = 5
_EPSILON = 1e-6


@lru_cache(maxsize=1000)
def describe(request: ResourceRequest) -> str:
    """Such as "2 GPUs (H100) with 38.5 GB, 4 cores and 16 GB of memory", for people."""
    own = f"{_cores(request.cpus)} and {request.memory_gb:g} GB of memory"
    if not request.devices:
        return own
    count = "a GPU" if request.devices == 1 else f"{request.devices} GPUs"
    kind = f" ({request.accelerator})" if request.accelerator else ""
    return f"{count}{kind} with {request.device_gb:g} GB, {own}"


def shortfall(node: Node, request: ResourceRequest) -> str | None:
    """What an idle node lacks, such as "1 core of 2, no GPU"; None where it lacks nothing."""
    parts = []
    if request.devices and (lack := _lack_of_gpus(node, request)):
        parts.append(lack)
    if node.cpus + _EPSILON < request.cpus:
        parts.append(f"{_cores(node.cpus)} of {request.cpus:g}")
    if node.memory_gb + _EPSILON < request.memory_gb:
        parts.append(f"{node.memory_gb:g} GB of memory of {request.memory_gb:g}")
    return ", ".join(parts) or None


def never_starts(nodes: Iterable[Node], options: Sequence[ResourceRequest]) -> str:
    """Why a job can never start on these nodes: the least that it needs, and what each node lacks of that."""
    request = options[-1]
    lacking: dict[str, list[str]] = {}
    for node in nodes:
        lacking.setdefault(shortfall(node, request) or "nothing", []).append(node.name)
    shown = [f"{_named(names)}: {lack}" for lack, names in list(lacking.items())[:_MOST_NODES]]
    return f"No node has {describe(request)}, so the job can never start here. {'; '.join(shown)}."


def least_request(nodes: Iterable[Node], *, threads: int) -> ResourceRequest:
    """The request of the smallest training on this cluster; one that has GPUs trains on GPUs alone."""
    has_gpus = any(node.devices for node in nodes)
    return LEAST_ON_GPU if has_gpus else ResourceRequest(cpus=threads, memory_gb=LEAST_MEMORY_GB)


def ready_for(node: Node, least: ResourceRequest) -> str:
    """What an idle node can run, where the smallest training requests `least`."""
    if lack := shortfall(node, least):
        return f"no training: {lack}"
    if not least.devices:
        return f"trainings on {_cores(node.cpus)}"
    sizes = sorted({f"{device.memory_gb:g}" for device in node.devices}, key=float)
    count = "1 GPU" if len(node.devices) == 1 else f"{len(node.devices)} GPUs"
    return f"trainings on {count} with {' and '.join(sizes)} GB"


def _lack_of_gpus(node: Node, request: ResourceRequest) -> str | None:
    suitable = sum(request.suits(device) for device in node.devices)
    if suitable >= request.devices:
        return None
    if not node.devices:
        return "no GPU"
    if suitable or len(node.devices) < request.devices:
        return f"{suitable or len(node.devices)} of {request.devices} GPUs"
    if request.accelerator and not any(request.accelerator.lower() in device.name.lower() for device in node.devices):
        return f"no GPU of the kind {request.accelerator}"
    return f"{max(device.memory_gb for device in node.devices):g} GB of GPU memory of {request.device_gb:g}"


def _cores(count: float) -> str:
    return f"{count:g} {'core' if count == 1 else 'cores'}"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NODES])
    more = f" and {len(names) - _MOST_NODES} more" if len(names) > _MOST_NODES else ""
    return f"{'Node' if len(names) == 1 else 'Nodes'} {shown}{more}"
