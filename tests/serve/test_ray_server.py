"""Ray server: what it settles before Ray begins."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from influencerai.serve.ray_server import RayServer
from influencerai.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_free_port_is_found_for_addresses_of_both_versions(tmp_path: Path, host: str) -> None:
    if ":" in host:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind((host, 0))
        except OSError:
            pytest.skip("the system has no IPv6")
    assert RayServer(Settings(root=tmp_path, host=host, port=0), needs_worker=False).port > 0
