"""Loopback: a Ray that one machine alone uses listens to that machine alone.

Ray replaces 127.0.0.1 by an address of the network, so that other machines could join, and then opens its ports on
all of them. Nothing joins a Ray that `influencerai serve` has started for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import services

ADDRESS = "127.0.0.1"


@contextmanager
def staying_here() -> Iterator[None]:
    """Have `ray.init` take 127.0.0.1 as it is given."""
    replaced = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = replaced


def close_replica() -> None:
    """In a replica's process, before it listens: its server for other replicas stays on the node's own address."""
    from ray.serve._private import replica

    listen = getattr(replica, "add_port_to_grpc_server", None)
    if listen is None or services.get_node_ip_address() != ADDRESS:  # type: ignore[no-untyped-call]
        return

    def listen_here(server: Any, address: str) -> Any:
        return listen(server, address.replace("[::]", ADDRESS))

    replica.add_port_to_grpc_server = listen_here  # type: ignore[attr-defined]  # it is imported there
