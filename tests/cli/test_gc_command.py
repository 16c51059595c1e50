from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from influencerai.settings import Settings
from influencerai.store import Store
from tests.cli.conftest import Invoke, json_lines


@pytest.fixture
def gc(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """The command, over a root with one cached tensor of long ago."""
    monkeypatch.setenv("INFLUENCERAI_ROOT", str(tmp_path))

    async def make() -> None:
        store = Store(Settings(root=tmp_path).database_url)
        await store.database.check()
        await store.database.close()

    anyio.run(make)
    tensor = tmp_path / ".influencerai/cache/ab/cd.tensors"
    tensor.parent.mkdir(parents=True)
    tensor.write_bytes(bytes(2048))
    os.utime(tensor, (0, 0))
    return lambda *arguments: invoke("gc", *arguments)


def test_a_dry_run_shows_what_the_next_run_removes(gc: Invoke, tmp_path: Path) -> None:
    said = gc("--older-than", "90d", "--dry-run")
    assert said.exit_code == 0
    assert "cache" in said.stdout
    assert "Would remove 2.0 KiB" in said.stdout
    done = json_lines(gc("--older-than", "90d", "--json").stdout)[-1]
    assert done["bytes"] == 2048
    assert done["removed"] == [{"kind": "cache", "tenant": None, "count": 1, "bytes": 2048}]
    assert not (tmp_path / ".influencerai/cache/ab/cd.tensors").exists()
    assert "Removed 0.0 KiB" in gc("--older-than", "90d").stdout


def test_the_age_is_named_or_a_setting(gc: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = gc()
    assert refused.exit_code == 2
    assert "--older-than" in refused.output
    assert gc("--older-than", "ninety days").exit_code == 2
    monkeypatch.setenv("INFLUENCERAI_RETENTION_DAYS", "90")
    assert "Would remove 2.0 KiB" in gc("--dry-run").stdout


def test_a_database_that_is_not_there_is_not_made(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("gc", "--older-than", "1d", "--root", tmp_path)
    assert result.exit_code == 1
    assert "There is no database" in result.output
