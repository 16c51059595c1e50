"""A workplace that tests share: a worker takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Databases
from tests.worker.workplace import Workplace, workplace


@pytest.fixture(scope="session")
def shared(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workplace]:
    url = databases.new(request.param)
    with workplace(tmp_path_factory.mktemp("place"), url) as opened:
        yield opened
    databases.give_back(url)


@pytest.fixture
def place(shared: Workplace) -> Iterator[Workplace]:
    """A workplace with two workers, whose processes are all accounted for afterwards."""
    shared.staff(2)
    yield shared
    shared.check_idle()


@pytest.fixture
def alone(databases: Databases, tmp_path: Path) -> Iterator[Workplace]:
    """A workplace of this test alone, on SQLite, without workers yet."""
    url = databases.new("sqlite")
    with workplace(tmp_path, url) as opened:
        yield opened
    databases.give_back(url)
