"""Database: connections, transactions and the state of the schema."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.errors import InfluencerAIError, SchemaError, StoreError, ValidationError
from influencerai.store.dialect import (
    POSTGRES_READERS,
    POSTGRES_WRITERS,
    is_sqlite,
    make_engine,
    reading,
    sqlite_file,
    take_turn,
    writing,
)
from influencerai.store.fair_slots import FairSlots

_READS_EACH = 2
_WRITES_EACH = 2
"""Transactions of one tenant at once: one more works while the first waits for the database."""
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One database, by URL. Reading transactions run side by side; on SQLite one writes at a time.

    Whom a transaction is for, `acting_for` says: nobody's transactions keep others waiting for more than a turn. One
    is never opened inside of another.
    """

    def __init__(self, url: str) -> None:
        self.is_sqlite = is_sqlite(url)
        self._file = sqlite_file(url)
        self._engine = make_engine(url)
        self._reads = FairSlots(slots=POSTGRES_READERS, each=_READS_EACH)
        self._writes = (
            FairSlots(slots=1, each=1) if self.is_sqlite else FairSlots(slots=POSTGRES_WRITERS, each=_WRITES_EACH)
        )
        """Who waits has no connection yet. SQLite's own waiting for its one writer is a poll, and unfair."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one moment and changes nothing.

        Raises:
            StoreError: the database does not answer.
        """
        async with self._reads.slot(), self._connected() as connection:
            await connection.execution_options(**reading(connection))
            async with connection.begin() as transaction:
                yield connection
                await transaction.rollback()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end of the block, or rolled back on an error.

        Raises:
            StoreError: the database does not answer, or has no room.
        """
        async with self._writes.slot(), self._connected() as connection:
            await connection.execution_options(**writing(connection))
            async with connection.begin():
                yield connection

    async def ping(self) -> None:
        """Ask the database for nothing.

        Raises:
            StoreError: it does not answer.
        """
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def upgrade(self) -> tuple[str | None, str | None]:
        """Bring the schema to this version, all of it or nothing; the revisions before and after.

        Raises:
            SchemaError: the schema is newer.
            StoreError: the database does not answer.
        """
        self._make_folder()
        async with self.write() as connection:
            await take_turn(connection, "upgrade")
            before = await connection.run_sync(_revision)
            if before is not None and before not in _known():
                raise _newer()
            await connection.run_sync(_upgrade)
        return before, _scripts().get_current_head()

    async def check(self, *, make: bool = True) -> None:
        """Refuse a schema that is not of this version; with `make`, a new SQLite file is given one.

        Raises:
            SchemaError: the schema is older or newer, or a server's database has none.
            StoreError: the database does not answer.
        """
        if not make and self._file is not None and not self._file.exists():
            raise StoreError(f"There is no database {self._file}.", remedy="Check the path; a server makes a new one.")
        self._make_folder()
        async with self.read() as connection:
            found = await connection.run_sync(_revision)
        if found is None and self.is_sqlite:
            await self.upgrade()
            return
        if found == _scripts().get_current_head():
            return
        if found is None:
            raise SchemaError(
                "The database is empty.", remedy="Run `influencerai db upgrade` once, with the same --database-url."
            )
        if found not in _known():
            raise _newer()
        raise SchemaError(
            "The database's schema is older than this version of InfluencerAI.",
            remedy="Back it up, then run `influencerai db upgrade` with the same --database-url.",
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await self._engine.connect()
        except (DBAPIError, PoolTimeoutError, OSError, TypeError, ValueError) as error:
            raise _unusable(error) from error
        try:
            yield connection
        except (IntegrityError, ProgrammingError) as error:
            if error.connection_invalidated:
                raise _unusable(error) from error
            raise  # a mistake of ours
        except DBAPIError as error:
            raise _in_words(error) from error
        finally:
            await asyncio.shield(connection.close())

    def _make_folder(self) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            _keep_private(self._file)
        except OSError as error:
            raise StoreError(
                f"The database's folder {self._file.parent} cannot be made: {error.strerror}.",
                remedy="Choose a root, or a database URL, that you may write to.",
            ) from error


def _keep_private(file: Path) -> None:
    """Make the file for its user alone, and take it from everybody where an earlier version left it readable.

    A file that exists is never opened: closing it would drop the locks that SQLite holds on it for this process, and
    another process, which finds none, would delete the log of what was written.
    """
    with suppress(OSError):  # which the database says itself
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    for path in (file, *(file.with_name(f"{file.name}{suffix}") for suffix in ("-wal", "-shm"))):
        with suppress(OSError):
            if (mode := path.stat().st_mode) & 0o007:
                path.chmod(mode & 0o7770)


def _in_words(error: DBAPIError) -> InfluencerAIError:
    """SQLSTATE class 22 is about a value; SQLite, which takes any, has no such thing."""
    if (getattr(error.orig, "sqlstate", None) or "").startswith("22"):
        return ValidationError(f"The database cannot keep a value of this: {_reason(error)}")
    return _unusable(error)


def _unusable(error: Exception) -> StoreError:
    return StoreError(
        "The database cannot be used",
        reason=_reason(error),
        remedy="Check that it runs, is whole and has room, then try again.",
    )


def _reason(error: Exception) -> str:
    """The driver's first line, without what SQLAlchemy puts around it."""
    cause = getattr(error, "orig", None) or error
    text = str(cause.__cause__ or cause).strip()
    return text.splitlines()[0].rstrip(".") if text else type(cause).__name__


def _upgrade(connection: Any) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(connection: Any) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _newer() -> SchemaError:
    return SchemaError(
        "The database's schema is newer than this version of InfluencerAI.",
        remedy="Install the version that upgraded it, or restore the backup from before.",
    )


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
