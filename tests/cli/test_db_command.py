from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, json_lines
from tests.databases import Databases


@pytest.mark.slow
def test_an_empty_postgres_is_upgraded_once(databases: Databases, invoke: Invoke) -> None:
    url = databases.new("postgres", schema=False)
    assert invoke("db", "check", "--database-url", url).exit_code == 1
    first = json_lines(invoke("db", "upgrade", "--database-url", url, "--json").stdout)[-1]
    assert first["before"] is None
    second = json_lines(invoke("db", "upgrade", "--database-url", url, "--json").stdout)[-1]
    assert second["before"] == second["after"] == first["after"]
    assert invoke("db", "check", "--database-url", url).exit_code == 0


def test_looking_at_a_file_that_is_not_there_makes_none(tmp_path: Path, invoke: Invoke) -> None:
    file = tmp_path / "folder" / "new.db"
    result = invoke("db", "check", "--database-url", f"sqlite:///{file}")
    assert result.exit_code == 1
    assert f"There is no database {file}." in result.stderr
    assert not file.parent.exists()


def test_a_newer_schema_is_not_touched(tmp_path: Path, invoke: Invoke) -> None:
    file = tmp_path / "newer.db"
    url = f"sqlite:///{file}"
    assert invoke("db", "upgrade", "--database-url", url).exit_code == 0
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of tomorrow'")
    for command in ("check", "upgrade"):
        result = invoke("db", command, "--database-url", url)
        assert result.exit_code == 1
        assert "newer" in result.output


def test_a_database_that_cannot_be_is_said(invoke: Invoke) -> None:
    result = invoke("db", "check", "--database-url", "mysql://me@localhost/x")
    assert result.exit_code == 1
    assert "Use SQLite or Postgres" in result.output
