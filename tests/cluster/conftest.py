"""A cluster that tests share: a head takes seconds to start, and a node's trainer more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.site import Site, site
from tests.databases import Databases


@pytest.fixture(scope="module")
def shared_site(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    url = databases.new(request.param)
    with site(tmp_path_factory.mktemp("site"), url) as opened:
        opened.add_node("one", cpus=1)
        opened.add_node("two", cpus=1)
        opened.staff(1)
        opened.wait_for_nodes("one", "two")
        yield opened
    databases.give_back(url)


@pytest.fixture
def place(shared_site: Site) -> Iterator[Site]:
    """A site with two nodes of one core each and a dispatcher; whose processes are all accounted for afterwards."""
    shared_site.staff(1)
    yield shared_site
    shared_site.check_never_overcommitted()


@pytest.fixture
def alone(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of this test alone, on SQLite, with neither nodes nor dispatchers yet."""
    url = databases.new("sqlite")
    with site(tmp_path_factory.mktemp("site"), url) as opened:
        yield opened
        opened.check_never_overcommitted()
    databases.give_back(url)
