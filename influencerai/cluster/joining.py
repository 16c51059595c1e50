"""Joining: the `ray start` that makes this machine a node, with the labels that its jobs are placed by."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from influencerai.cluster.probe import list_gpus
from influencerai.errors import ValidationError
from influencerai.scheduling.placement import Device, Node, ResourceRequest
from influencerai.scheduling.shortfall import LEAST_MEMORY_GB, LEAST_ON_GPU, shortfall

NAME_LABEL = "influencerai/name"
GPU_MEMORY_LABEL = "influencerai/gpu-memory-gb"
PRETENDED_LABEL = "influencerai/pretended-gpus"
"""Of a node whose GPUs are only counted: its trainings run on the CPU. For trying a cluster out."""
DEFAULT_PORT = 6379
_RAY = (sys.executable, "-m", "ray.scripts.scripts")
_RAY_START = (sys.executable, "-m", "influencerai.cluster.ray_program")
_OBJECT_STORE_BYTES = 100 * 2**20
"""Ray's least and more; nothing of ours is put there."""
_TOKEN_FILE = Path(".ray/auth_token")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
PROXY_ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "influencerai.serve.proxy_process:bounded"}
"""Of a process that starts Ray: Serve's proxies on its node have the bounds of our own server."""
_DRAIN_VARIABLE = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


@dataclass(frozen=True, kw_only=True)
class NodeOffer:
    """What a machine brings to a cluster; what is None, Ray detects."""

    name: str | None = None
    host: str | None = None
    """Address by which the other nodes reach it."""
    cpus: int | None = None
    memory_gb: float | None = None
    gpus: int | None = None
    gpu_memory_gb: float | None = None
    pretends: bool = False
    drain_seconds: float = 120
    """On SIGTERM its jobs have so long to save their states."""


def lack_of(offer: NodeOffer) -> str | None:
    """What the machine lacks for the smallest training, such as "1 core of 2"; None where it lacks nothing."""
    gpus = len(list_gpus()) if offer.gpus is None else offer.gpus
    node = Node(
        id="",
        name="",
        cpus=len(os.sched_getaffinity(0)) if offer.cpus is None else offer.cpus,
        memory_gb=_memory_gb() if offer.memory_gb is None else offer.memory_gb,
        devices=(Device(name="", memory_gb=offer.gpu_memory_gb or math.inf),) * gpus,
    )
    return shortfall(node, LEAST_ON_GPU if gpus else ResourceRequest(cpus=1, memory_gb=LEAST_MEMORY_GB))


def _memory_gb() -> float:
    """Of the machine, in gigabytes of 10^9 bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def start_command(offer: NodeOffer, *, head_address: str | None, port: int = DEFAULT_PORT) -> list[str]:
    """The program to become; with no `head_address` it is the head."""
    given: dict[str, object] = {
        "--num-cpus": offer.cpus,
        "--num-gpus": offer.gpus,
        "--memory": None if offer.memory_gb is None else int(offer.memory_gb * 1e9),
        "--node-ip-address": offer.host,
        "--object-store-memory": _OBJECT_STORE_BYTES,
        "--labels": ",".join(f"{key}={value}" for key, value in labels_of(offer).items()),
    }
    if head_address is None:
        place = ["--head", f"--port={port}", "--include-dashboard=false"]
    else:
        place = [f"--address={head_address}"]
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*_RAY_START, "start", *place, *options, "--block", "--disable-usage-stats"]


def start_environment(offer: NodeOffer, *, is_head: bool) -> dict[str, str]:
    """Its environment: this process's, a token that every node of the cluster has to know, and a drain's duration.

    It keeps the server's secrets: an API that `serve run` or a RayService deploys there reads its settings from it.
    Trainings get none of them.

    Raises:
        ValidationError: there is no token to join with, or none can be made.
    """
    own = dict(os.environ)
    if own.get("RAY_AUTH_MODE", "token") == "token":
        if not _has_token(own):
            if not is_head:
                raise ValidationError(
                    "There is no token to join the cluster with.",
                    remedy="Set RAY_AUTH_TOKEN to what the head's ~/.ray/auth_token holds.",
                )
            _make_token()
        keep_token_private()
        own["RAY_AUTH_MODE"] = "token"
    return {**own, **PROXY_ENVIRONMENT, _DRAIN_VARIABLE: f"{offer.drain_seconds:g}"}


def _make_token() -> None:
    made = subprocess.run([*_RAY, "get-auth-token", "--generate"], capture_output=True, text=True, check=False)
    if made.returncode:
        said = (made.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ValidationError(
            f"Ray cannot make a token for the cluster: {said}",
            remedy=f"Look whether {Path.home() / _TOKEN_FILE} can be written, or set RAY_AUTH_TOKEN.",
        )


def keep_token_private() -> None:
    """Ray makes the token's file readable for everybody, and who has the token runs code on the cluster."""
    file = Path.home() / _TOKEN_FILE
    for path, mode in ((file.parent, 0o700), (file, 0o600)):
        with suppress(OSError):
            if path.stat().st_mode & 0o077:
                path.chmod(mode)


def _has_token(environment: Mapping[str, str]) -> bool:
    named = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / _TOKEN_FILE).exists()


def labels_of(offer: NodeOffer) -> dict[str, str]:
    """What the node is placed by: its name, and the memory of its smallest GPU, in GB.

    Raises:
        ValidationError: Ray does not take the name as a label.
    """
    if offer.name is not None and not _LABEL.fullmatch(offer.name):
        raise ValidationError(
            f"A node cannot be called {offer.name!r}.",
            remedy="Use at most 63 letters, digits and '-', '_', '.', with a letter or digit at both ends.",
        )
    labels = {NAME_LABEL: offer.name or socket.gethostname()}
    memory = offer.gpu_memory_gb
    if memory is None and (found := list_gpus()):
        memory = min(device.memory_gb for device in found)
    if memory is not None:
        labels[GPU_MEMORY_LABEL] = f"{memory:g}"
    if offer.pretends:
        labels[PRETENDED_LABEL] = "true"
    return labels
