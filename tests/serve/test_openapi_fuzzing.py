"""The API against its own document: schemathesis sends what it allows and what it forbids to a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from influencerai.serve.examples import REQUESTS
from tests.servers import Server, serve

_REPOSITORY = Path(__file__).parents[2]
_LEFT_OUT = "ignored_auth,positive_data_acceptance"
"""Development believes any tenant; and a request may follow the document and still be too early: see the hooks."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path, log_level="error") as running:
        yield running


def fuzz(server: Server, *arguments: str) -> None:
    """Run schemathesis with every check but those left out.

    Raises:
        AssertionError: with its report, which has a line of curl for each failure.
    """
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{server.url}/api/openapi.json",
            "--header=x-tenant-id: fuzz",
            f"--exclude-checks={_LEFT_OUT}",
            "--seed=1",
            "--no-color",
            *arguments,
        ],
        cwd=server.root,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.serve.fuzzing_hooks", "PYTHONPATH": str(_REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{server.log_tail()}"


@pytest.mark.slow
def test_a_few_requests_to_every_route(server: Server) -> None:
    fuzz(server, "--phases=examples,fuzzing", "--max-examples=4", "--no-shrink")


@pytest.mark.campaign
def test_many_requests_to_every_route(server: Server) -> None:
    fuzz(server, "--phases=examples,coverage,fuzzing", "--max-examples=15")


@pytest.mark.campaign
def test_requests_that_follow_from_each_other(server: Server) -> None:
    dataset = server.ask("POST", "/datasets", REQUESTS["create_dataset"], tenant="fuzz").document
    config = {**REQUESTS["create_lora_config"], "isDefault": True}
    assert server.ask("POST", "/lora-configs", config, tenant="fuzz").status == 201
    job = {"type": "lora-training", "payload": {"datasetId": dataset["id"]}}
    for _ in range(5):
        assert server.ask("POST", "/jobs", job, tenant="fuzz").status == 201
    fuzz(server, "--phases=stateful", "--max-examples=50")
