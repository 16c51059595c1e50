"""The SDK, built and installed once, and servers for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from influencerai.settings import Settings
from tests.databases import Databases
from tests.servers import Server, serve_on_contract_port
from tests.training_runs import write_dataset
from tests.typescript.node import Package, Project, build, install


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return build(tmp_path_factory.mktemp("sdk") / "typescript")


@pytest.fixture(scope="session")
def project(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return install(package, tmp_path_factory.mktemp("user") / "project")


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API alone, with pictures where the reference has its dataset."""
    root = tmp_path_factory.mktemp("api")
    write_dataset(root / "data" / "datasets" / "my-influencer", count=2)
    with serve_on_contract_port(root) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, databases: Databases) -> Iterator[Settings]:
    """Of a server of the test's own, on SQLite."""
    url = databases.new("sqlite")
    root = tmp_path / "root"
    root.mkdir()
    yield Settings(root=root, database_url=url, poll_seconds=0.05, min_free_mib=0)
    databases.give_back(url)
