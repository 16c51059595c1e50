"""The schema: what a migration makes, who may open which, and that it is brought up to date once."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from influencerai.domain.job import JobQuery
from influencerai.errors import SchemaError, StoreError
from influencerai.service.keys import KeyService
from influencerai.store import Store, database
from influencerai.store.api_keys import hash_of
from influencerai.store.schema import metadata
from tests.databases import KINDS, Databases
from tests.store.rows import add_config, add_dataset, add_job

pytestmark = pytest.mark.anyio
HEAD = database._scripts().get_current_head() or ""


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, databases: Databases) -> str:
    """A database in which there is nothing at all."""
    return databases.new(request.param, schema=False)


@pytest.fixture
async def bare(empty_url: str) -> AsyncIterator[Store]:
    """A store over `empty_url`."""
    opened = Store(empty_url)
    yield opened
    await opened.database.close()


async def stamp(store: Store, revision: str) -> None:
    async with store.database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :new"), {"new": revision})


async def test_migrating_makes_exactly_the_tables_of_the_schema(bare: Store) -> None:
    assert await bare.database.upgrade() == (None, HEAD)

    def differences(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    def partial_indexes(connection: Connection) -> set[str | None]:
        return {
            index["name"]
            for table in metadata.tables
            for index in inspect(connection).get_indexes(table)
            if any(name.endswith("_where") for name in index.get("dialect_options", {}))
        }

    async with bare.database.read() as connection:
        assert await connection.run_sync(differences) == []
        expected = {
            index.name
            for table in metadata.tables.values()
            for index in table.indexes
            if index.dialect_options["sqlite"]["where"] is not None
        }
        assert await connection.run_sync(partial_indexes) == expected
    await bare.database.check()
    await add_config(bare)


@pytest.mark.parametrize("rows", [
    "UPDATE datasets SET status = 'odd'",
    "UPDATE jobs SET status = 'odd'",
    "UPDATE jobs SET owner = 'odd'",
    "UPDATE jobs SET cost_tok = -1",
    "UPDATE jobs SET active_dataset_id = 'none'",
    "UPDATE lora_configs SET is_default = true",
    "UPDATE lora_configs SET name = 'same'",
    "INSERT INTO outputs (tenant_id, path, job_id) SELECT 'ann', 'data/loras/face', id FROM jobs",
])  # fmt: skip
async def test_the_database_itself_refuses_what_must_not_be(store: Store, rows: str) -> None:
    await add_job(store)
    await add_dataset(store)
    await add_config(store, name="a")
    await add_config(store, name="b")
    with pytest.raises(Exception, match=r"(?i)constraint"):
        async with store.database.write() as connection:
            await connection.execute(text(rows))


@pytest.mark.slow
async def test_upgrading_again_changes_nothing(bare: Store) -> None:
    await bare.database.upgrade()
    await add_config(bare)
    assert await bare.database.upgrade() == (HEAD, HEAD)
    async with bare.read() as transaction:
        assert await transaction.counts.total("ann", "lora_config") == 1


@pytest.mark.slow
async def test_processes_may_make_the_schema_at_once(empty_url: str) -> None:
    code = f"""if True:
        import asyncio, sys
        from influencerai.store import Store
        store = Store(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        asyncio.run(store.database.{"check" if empty_url.startswith("sqlite") else "upgrade"}())
    """
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, empty_url, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    found = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 3, found


@pytest.mark.slow
async def test_many_stores_may_make_the_schema_at_once(empty_url: str) -> None:
    stores = [Store(empty_url) for _ in range(8)]
    await asyncio.gather(
        *(store.database.check() if store.database.is_sqlite else store.database.upgrade() for store in stores)
    )
    await asyncio.gather(*(add_config(store, name=str(index)) for index, store in enumerate(stores)))
    for store in stores:
        await store.database.close()


async def test_a_new_file_is_made_in_a_new_folder(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'a' / 'b' / 'data.db'}")
    await store.database.check()
    await add_config(store)
    await store.database.close()
    assert (tmp_path / "a" / "b" / "data.db").is_file()


async def test_an_empty_server_is_refused_with_the_remedy_and_an_empty_file_is_filled(bare: Store) -> None:
    if bare.database.is_sqlite:
        await bare.database.check()
        await add_config(bare)
    else:
        with pytest.raises(SchemaError, match=r"is empty.*influencerai db upgrade"):
            await bare.database.check()


async def test_a_newer_schema_is_refused_and_left_alone(store: Store) -> None:
    await stamp(store, "9999")
    for entry in (store.database.check, store.database.upgrade):
        with pytest.raises(SchemaError, match="newer than this version"):
            await entry()
    await stamp(store, HEAD)


@pytest.mark.slow
async def test_an_older_schema_is_refused_until_it_is_upgraded(
    bare: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bare.database.upgrade()
    await add_config(bare)
    migrations = shutil.copytree(database.MIGRATIONS, tmp_path / "mig%rations")
    (migrations / "versions" / "9998_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f'revision, down_revision, branch_labels, depends_on = "9998", "{HEAD}", None, None\n'
        'def upgrade():\n    op.add_column("lora_configs", sa.Column("colour", sa.String(9)))\n'
    )
    monkeypatch.setattr(database, "MIGRATIONS", migrations)
    with pytest.raises(SchemaError, match=r"older than this version.*Back it up"):
        await bare.database.check()
    assert await bare.database.upgrade() == (HEAD, "9998")
    await bare.database.check()
    async with bare.database.read() as connection:
        assert (await connection.execute(text("SELECT name, colour FROM lora_configs"))).all() == [("face", None)]


def upgrade_to(connection: Connection, revision: str) -> None:
    config = database._config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_device_time_of_earlier_attempts_counts_for_quotas(bare: Store) -> None:
    job = {
        "id": "j", "tenant_id": "ann", "type": "lora-training", "status": "failed", "cancelled": False,
        "payload": "{}", "snapshot": "{}", "created_at": 1, "updated_at": 1, "output_dir": "x", "priority": 5,
        "not_before": 0, "fence": 3, "lost_attempts": 0, "broken_attempts": 0, "last_seq": 0,
    }  # fmt: skip
    february, march = 1_738_368_000_000, 1_740_787_200_000  # 2025, UTC
    attempts = [
        (1, february, february + 10_000, 2.0, "released"),
        (2, march - 1000, march + 1000, 1.0, "failed"),
        (3, march, march + 99_000, 1.0, "lost"),
        (4, march, None, 1.0, None),
    ]
    async with bare.database.write() as connection:
        await connection.run_sync(upgrade_to, "0003")
        names = ", ".join(job)
        await connection.execute(text(f"INSERT INTO jobs ({names}) VALUES (:{names.replace(', ', ', :')})"), job)
        for fence, started, ended, devices, outcome in attempts:
            row = {"fence": fence, "started": started, "ended": ended, "devices": devices, "outcome": outcome}
            columns = "job_id, fence, node, devices, charged, tok_per_second, started_at, ended_at, outcome"
            values = "'j', :fence, 'n', :devices, 0, 0, :started, :ended, :outcome"
            await connection.execute(text(f"INSERT INTO attempts ({columns}) VALUES ({values})"), row)
    await bare.database.upgrade()
    async with bare.read() as transaction:
        used = [await transaction.counts.total("ann", "used_ms", first=month) for month in ("2025-02", "2025-03")]
    assert used == [20_000, 2_000]


async def test_keys_of_the_first_schema_keep_what_they_opened(bare: Store) -> None:
    async with bare.database.write() as connection:
        await connection.run_sync(upgrade_to, "0001")
        for number, (scope, tenant) in enumerate((("tenant", "ann"), ("worker", None))):
            row = {"id": scope, "tenant": tenant, "scope": scope, "hash": hash_of(f"iak_{number}")}
            await connection.execute(
                text(
                    "INSERT INTO api_keys (id, tenant_id, scope, name, prefix, hash, created_at)"
                    " VALUES (:id, :tenant, :scope, 'old', 'iak_', :hash, 1)"
                ),
                row,
            )
    await bare.database.upgrade()
    service = KeyService(bare)
    found = [await service.authenticate(f"iak_{number}") for number in range(2)]
    assert [(key.scope, key.tenant_id, key.name, key.state) for key in found] == [
        ("full", "ann", "old", "active"), ("worker", None, "old", "active"),
    ]  # fmt: skip


async def test_an_upgrade_that_fails_leaves_the_schema_as_it_was(
    bare: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bare.database.upgrade()
    migrations = shutil.copytree(database.MIGRATIONS, tmp_path / "migrations")
    (migrations / "versions" / "9998_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f'revision, down_revision, branch_labels, depends_on = "9998", "{HEAD}", None, None\n'
        'def upgrade():\n    op.add_column("lora_configs", sa.Column("colour", sa.String(9)))\n    1 / 0\n'
    )
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations)
        with pytest.raises(ZeroDivisionError):
            await bare.database.upgrade()
    await bare.database.check()
    async with bare.database.read() as connection:
        columns = await connection.run_sync(lambda found: inspect(found).get_columns("lora_configs"))
    assert "colour" not in [column["name"] for column in columns]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/name", "'mysql' is no database"),
        ("nonsense", "cannot be read"),
        ("postgresql://host:port/name", "cannot be read"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        Store(url)


async def test_jobs_of_an_older_schema_get_their_names_and_stay_listed(bare: Store) -> None:
    def upgrade_to_0004(connection: Connection) -> None:
        config = database._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")

    document = {
        "config": {"name": "Älter", "modelName": "sd15", "meta": {"note": "a\0b"}},
        "dataset": {"id": "d", "path": "data/old"},
    }
    values = {
        "id": "j", "tenant_id": "ann", "type": "lora-training", "status": "failed", "cancelled": False,
        "payload": json.dumps({"datasetId": "d", "loraConfigId": "c"}), "snapshot": json.dumps(document),
        "result": json.dumps({"error": "CUDA out of memory"}), "output_dir": "data/loras/x", "priority": 5,
        "not_before": 0, "fence": 1, "lost_attempts": 0, "broken_attempts": 0, "last_seq": 0, "created_at": 1,
        "updated_at": 1,
    }  # fmt: skip
    names = ", ".join(values)
    row = text(f"INSERT INTO jobs ({names}) VALUES ({', '.join(f':{name}' for name in values)})")
    async with bare.database.write() as connection:
        await connection.run_sync(upgrade_to_0004)
        await connection.execute(row, values)
    await bare.database.upgrade()
    async with bare.read() as transaction:
        page = await transaction.jobs.page("ann", JobQuery(dataset_id="d", lora_config_id="c"))
    [job] = page.items
    assert (page.total, job.lora_config_name, job.model_name, job.dataset_path) == (1, "Älter", "sd15", "data/old")
    assert (job.metadata, job.stage, job.result) == ({}, None, {"error": "CUDA out of memory"})
