"""A server behind a real socket, and a client of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from influencerai.client import InfluencerAIClient
from influencerai.settings import Settings
from tests.client.both import KINDS, Kind, opened
from tests.client.proxy import Proxy, proxied
from tests.databases import Databases
from tests.serve.sockets import Served, served

Connect = Callable[..., InfluencerAIClient]


@pytest.fixture
def settings(tmp_path: Path, databases: Databases) -> Iterator[Settings]:
    """Of a server of the test's own, on SQLite."""
    url = databases.new("sqlite")
    yield Settings(root=tmp_path / "root", database_url=url, poll_seconds=0.05, min_free_mib=0)
    databases.give_back(url)


@pytest.fixture
def server(settings: Settings) -> Iterator[Served]:
    settings.root.mkdir()
    with served(settings) as running:
        yield running


@pytest.fixture
def proxy(server: Served) -> Iterator[Proxy]:
    with proxied(server.port) as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def tenant() -> str:
    """Of the test's own, so that tests may share a server."""
    return f"t{uuid4().hex}"


@pytest.fixture
def connect(kind: Kind, tenant: str) -> Iterator[Connect]:
    """Makes clients of the kind, by default of the test's tenant."""
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> InfluencerAIClient:
            if "api_key" not in options:
                options.setdefault("tenant_id", tenant)
            options.setdefault("on_warning", lambda text: None)
            client: AbstractContextManager[InfluencerAIClient] = opened(kind, url, **options)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(server: Served, connect: Connect) -> InfluencerAIClient:
    return connect(server.url)
