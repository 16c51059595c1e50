"""Dialect: everything in which SQLite and Postgres differ."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Select,
    String,
    Table,
    any_,
    event,
    func,
    literal,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.util import await_only

from influencerai.errors import DependencyMissingError, StoreError

_WRITES = "influencerai_writes"
BUSY_SECONDS = 30
"""How long a writer waits for another one."""
_CONNECT_SECONDS = 10
_WAL_PAUSE_SECONDS = 0.1
POSTGRES_READERS = 12
POSTGRES_WRITERS = 8
"""Connections of one process: reads have theirs, however many writers wait for each other."""


class now(FunctionElement[int]):  # noqa: N801  # reads as the SQL function that it is
    """Milliseconds since 1970 on the database's clock."""

    type = BigInteger()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"


@compiles(now, "postgresql")
def _now_in_postgres(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(floor(extract(epoch FROM statement_timestamp()) * 1000) AS BIGINT)"


def make_engine(url: str) -> AsyncEngine:
    """An engine for `sqlite:///path` or `postgresql://...`, with the driver of ours.

    Raises:
        StoreError: another database, or no URL.
        DependencyMissingError: Postgres is asked for and its driver is not installed.
    """
    parsed = _with_driver(url)
    if parsed.get_backend_name() == "postgresql":
        return _postgres_engine(parsed)
    engine = create_async_engine(parsed, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    event.listen(engine.sync_engine, "invalidate", _let_go_of_sqlite)
    return engine


def reading(connection: AsyncConnection) -> dict[str, Any]:
    """Execution options of a transaction that sees one moment of the database."""
    if connection.dialect.name == "postgresql":
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return {_WRITES: False}


def writing(connection: AsyncConnection) -> dict[str, Any]:
    """Execution options of a transaction that writes."""
    return {} if connection.dialect.name == "postgresql" else {_WRITES: True}


async def take_turn(connection: AsyncConnection, what: str) -> None:
    """Until the transaction ends, nobody else does `what`; on SQLite writers are alone anyway."""
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock(func.hashtextextended(f"influencerai {what}", 0))
        await connection.execute(select(lock))


def is_sqlite(url: str) -> bool:
    return _with_driver(url).get_backend_name() == "sqlite"


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database, or None for a server's."""
    parsed = _with_driver(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def sorted_text(length: int) -> String:
    """A text column in the order of code points, which is SQLite's."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def one_of(connection: AsyncConnection, column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    """Whether the column has one of the values: for Postgres one parameter, since hundreds cost more than the query."""
    if connection.dialect.name == "postgresql":
        return column == any_(literal([*values], postgresql.ARRAY(String)))
    return column.in_([*values])


def one_of_first(connection: AsyncConnection, column: ColumnElement[str], first: Select[Any]) -> ColumnElement[bool]:
    """Whether the column has one of the values of a correlated query; Postgres looks them up if they are an array."""
    if connection.dialect.name == "postgresql":
        return column == any_(func.array(first.scalar_subquery()))
    return column.in_(first)


def insert_or_keep(connection: AsyncConnection, table: Table) -> Any:
    """INSERT that leaves a row of the same primary key as it is; no row is touched then."""
    return _insert(connection, table).on_conflict_do_nothing(index_elements=_key(table))


def insert_or_set(connection: AsyncConnection, table: Table, *columns: str) -> Any:
    """INSERT that sets `columns` where there is a row of the same primary key."""
    statement = _insert(connection, table)
    new = {name: statement.excluded[name] for name in columns}
    return statement.on_conflict_do_update(index_elements=_key(table), set_=new)


def insert_or_fill(connection: AsyncConnection, table: Table, *columns: str) -> Any:
    """INSERT that sets `columns` where there is a row of the same primary key; what is NULL leaves the old value."""
    statement = _insert(connection, table)
    new = {name: func.coalesce(statement.excluded[name], table.c[name]) for name in columns}
    return statement.on_conflict_do_update(index_elements=_key(table), set_=new)


def insert_or_add(connection: AsyncConnection, table: Table, column: str) -> Any:
    """INSERT that adds to `column` where there is a row of the same primary key."""
    statement = _insert(connection, table)
    total = table.c[column] + statement.excluded[column]
    return statement.on_conflict_do_update(index_elements=_key(table), set_={column: total})


def insert_or_change(connection: AsyncConnection, table: Table, change: Callable[[Any], Mapping[str, Any]]) -> Any:
    """INSERT that, where there is a row of the same primary key, sets what `change` makes of the new row's columns."""
    statement = _insert(connection, table)
    return statement.on_conflict_do_update(index_elements=_key(table), set_=change(statement.excluded))


def _insert(connection: AsyncConnection, table: Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _key(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _with_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            "The database URL cannot be read.", remedy="Write sqlite:///data.db or postgresql://user@host/name."
        ) from error
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    name = parsed.drivername.partition("+")[0]
    if name == "sqlite" and (not parsed.database or parsed.database.startswith((":memory:", "file:"))):
        raise StoreError("A SQLite database needs a file.", remedy="Write sqlite:///folder/data.db.")
    if name not in drivers:
        raise StoreError(f"'{name}' is no database that can be used.", remedy="Use SQLite or Postgres.")
    return parsed.set(drivername=drivers[name])


def _postgres_engine(url: URL) -> AsyncEngine:
    """The driver reads the URL by itself: it knows `sslmode` and all else that libpq does."""
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        raise DependencyMissingError(
            "The driver for Postgres is not installed.", remedy="pip install 'influencerai[postgres]'"
        ) from error
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    waits = {"lock_timeout": BUSY_SECONDS, "idle_in_transaction_session_timeout": 4 * BUSY_SECONDS}
    settings = {name: f"{seconds}s" for name, seconds in waits.items()}

    async def connect() -> Any:
        return await asyncpg.connect(address, timeout=_CONNECT_SECONDS, server_settings=settings)

    # Without `hide_parameters` an error that is logged would name the values of a row.
    return create_async_engine(
        url,
        async_creator=connect,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=POSTGRES_READERS + POSTGRES_WRITERS,
        max_overflow=0,
    )


def _configure_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    _switch_to_wal(cursor)
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """SQLite does not wait for a lock here, which another connection has that makes the file at this moment."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        await_only(asyncio.sleep(_WAL_PAUSE_SECONDS))


def _let_go_of_sqlite(connection: Any, record: Any, error: Any) -> None:
    """A statement that was called off in the middle keeps the lock, even beyond the connection's end."""
    with suppress(Exception):
        connection.rollback()


def _begin_sqlite(connection: Connection) -> None:
    """A deferred transaction that reads and then writes fails at once, whatever the timeout."""
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
