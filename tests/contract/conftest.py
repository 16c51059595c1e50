"""A server per module for the reference's examples: its folders as the reference names them, its tenant empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Server, serve_on_contract_port
from tests.training_runs import write_dataset


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API alone, with pictures in the two folders that the reference names."""
    root = tmp_path_factory.mktemp("api")
    for name in ("my-influencer", "portrait-demo"):
        write_dataset(root / "data" / "datasets" / name, count=2)
    with serve_on_contract_port(root) as running:
        yield running


@pytest.fixture
def api(server: Server) -> Server:
    """The server, with nothing in the tenant of the reference's requests."""
    while jobs := server.ask("GET", "/jobs?take=100").document["data"]:
        for job in jobs:
            if job["status"] in ("pending", "running"):
                assert server.ask("PATCH", f"/jobs/{job['id']}", {"status": "failed"}).status == 200
            assert server.ask("DELETE", f"/jobs/{job['id']}").status == 200
    while configs := server.ask("GET", "/lora-configs?take=100").document["data"]:
        for config in configs:
            assert server.ask("DELETE", f"/lora-configs/{config['id']}").status == 200
    while datasets := server.ask("GET", "/datasets?take=100").document:
        for dataset in datasets:
            assert server.ask("DELETE", f"/datasets/{dataset['id']}").status == 200
    return server
