"""Metrics: figures of this process, and of all servers together, read from the database when Prometheus asks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from influencerai.service.health import ServerFigures


class Figures:
    """Requests and streams of this process; `replica` tells processes behind one address apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._replica = f"{socket.gethostname()}:{os.getpid()}"
        labels = ("method", "route", "status", "replica")
        self._requests = Counter("influencerai_requests", "Requests answered.", labels, registry=self.registry)
        self._seconds = Histogram(
            "influencerai_request_seconds",
            "Time to the end of an answer.",
            ("method", "route", "replica"),
            registry=self.registry,
        )
        self._streams = Gauge("influencerai_event_streams", "Open event streams.", ("replica",), registry=self.registry)

    def note(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status), self._replica).inc()
        self._seconds.labels(method, route, self._replica).observe(seconds)

    def exposition(self, server: ServerFigures, *, open_streams: int) -> bytes:
        """Everything in Prometheus' text format."""
        self._streams.labels(self._replica).set(open_streams)
        totals = CollectorRegistry()
        totals.register(_Totals(server))
        return generate_latest(self.registry) + generate_latest(totals)


class _Totals(Collector):
    """The same whichever server answers."""

    def __init__(self, server: ServerFigures) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        server, jobs = self._server, self._server.jobs
        yield _gauge("jobs", "Jobs of all tenants.", ("status",), (((name,), n) for name, n in server.statuses.items()))
        yield _gauge("queue_oldest_seconds", "Age of the oldest pending job.", (), [((), jobs.oldest_pending_seconds)])
        wait = HistogramMetricFamily("influencerai_queue_wait_seconds", "From a job's submission to its first start.")
        wait.add_metric([], buckets=list(jobs.wait.buckets), sum_value=jobs.wait.total)
        yield wait
        took = HistogramMetricFamily(
            "influencerai_job_seconds", "From a job's first start to its end.", labels=["outcome"]
        )
        for outcome, found in jobs.took.items():
            took.add_metric([outcome], buckets=list(found.buckets), sum_value=found.total)
        yield took
        failures = CounterMetricFamily("influencerai_job_failures", "Failed jobs by code.", labels=["code"])
        for code, count in sorted(jobs.failures.items()):
            failures.add_metric([code], count)
        yield failures
        yield _gauge(
            "images_per_second", "Images that all running jobs train per second.", (), [((), jobs.images_per_second)]
        )
        yield _gauge("workers", "Workers seen lately.", (), [((), server.workers)])
        yield from self._nodes()
        folders = server.disks.items()
        yield _gauge("disk_free_bytes", "Free bytes.", ("folder",), (((name,), disk.free) for name, disk in folders))
        yield _gauge(
            "disk_size_bytes", "Bytes of the disk.", ("folder",), (((name,), disk.size) for name, disk in folders)
        )

    def _nodes(self) -> Iterator[Metric]:
        nodes = self._server.nodes
        states = {state: sum(node.state == state for node in nodes) for state in ("ready", "draining", "not ready")}
        yield _gauge("nodes", "Nodes of the cluster.", ("state",), (((state,), n) for state, n in states.items()))
        yield _gauge("node_cpus", "Cores of a node.", ("node",), (((node.name,), node.cpus) for node in nodes))
        held = (((node.name,), node.cpus_held) for node in nodes)
        yield _gauge("node_cpus_allocated", "Cores that jobs hold.", ("node",), held)
        gpus = [(node.name, str(index), gpu) for node in nodes for index, gpu in enumerate(node.devices)]
        yield _gauge(
            "gpu_memory_bytes", "Memory of a GPU.", ("node", "gpu"), ((at[:2], at[2].memory_gb * 1e9) for at in gpus)
        )
        yield _gauge(
            "gpu_allocation", "The part of a GPU that jobs hold, 0 to 1.", ("node", "gpu"),
            ((at[:2], at[2].held) for at in gpus),
        )  # fmt: skip


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"influencerai_{name}", text, labels=labels)
    for given, value in values:
        family.add_metric(list(given), value)
    return family
