"""Cluster: the machines that train, and what runs on them, as one tenant may see it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influencerai.domain.wire import Timestamp, WireModel


class ClusterDevice(WireModel):
    """A GPU of a node."""

    name: str
    memory_gb: float = Field(description="Gigabytes, of 10^9 bytes.")
    held: float = Field(description="The part of it that jobs hold, from 0 to 1.")


class ClusterJob(WireModel):
    """A job of the asking tenant that a node trains."""

    id: str
    attempt: int
    started_at: Timestamp
    devices: float = Field(description="Devices that it holds, in parts of a GPU too.")


class ClusterNode(WireModel):
    """One machine."""

    id: str
    name: str
    state: Literal["ready", "draining", "not ready"]
    problem: str | None = Field(default=None, description="What keeps it from training, and what is missing.")
    ready_for: str | None = Field(default=None, description="Largest work that it can take while it is idle.")
    cpus: float
    cpus_held: float
    memory_gb: float = Field(description="Gigabytes, of 10^9 bytes.")
    memory_held_gb: float
    devices: tuple[ClusterDevice, ...] = ()
    jobs: tuple[ClusterJob, ...] = Field(default=(), description="Your jobs that run there.")
    other_jobs: int = Field(default=0, description="Jobs of others that run there.")


class Cluster(WireModel):
    """All machines, and workers that stand alone."""

    nodes: tuple[ClusterNode, ...]
    workers: int = Field(description="Workers of this server's own machine, which need no cluster.")
