"""A running API for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from influencerai.settings import Settings
from tests.databases import Databases
from tests.serve.running import Api, running


@pytest.fixture
def sqlite_url(databases: Databases) -> Iterator[str]:
    """An empty SQLite database with the schema."""
    url = databases.new("sqlite")
    yield url
    databases.give_back(url)


@pytest.fixture
async def api(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Api]:
    """In development, on SQLite."""
    async with running(Settings(root=tmp_path, database_url=sqlite_url)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.campaign)])
def any_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """An empty database with the schema; on Postgres in the campaign alone."""
    url = databases.new(request.param)
    yield url
    databases.give_back(url)


@pytest.fixture
async def any_api(tmp_path: Path, any_url: str) -> AsyncIterator[Api]:
    """In development, on SQLite, and in the campaign on Postgres too."""
    async with running(Settings(root=tmp_path, database_url=any_url)) as opened:
        yield opened


@pytest.fixture
async def both_api(tmp_path: Path, database_url: str) -> AsyncIterator[Api]:
    """In development, once on SQLite and once on Postgres."""
    async with running(Settings(root=tmp_path, database_url=database_url)) as opened:
        yield opened
