"""What goes wrong outside: the database is away, damaged, full, or its user is killed or called off in the middle."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from influencerai.domain.dataset import DatasetQuery
from influencerai.errors import StoreError, ValidationError
from influencerai.store import Store
from tests.databases import Databases, start_server, upgrade
from tests.store.rows import ANN, add_config, add_dataset, add_job, check_counts, lora_config, stored

pytestmark = pytest.mark.anyio


async def count(store: Store, noun: str = "lora_config") -> int:
    async with store.read() as transaction:
        return await transaction.counts.total(ANN, noun)


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store in a file of its own."""
    store = Store(f"sqlite:///{tmp_path / 'data.db'}")
    await store.database.check()
    yield store
    await store.database.close()


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_needs_no_new_store() -> None:
    folder = Path(tempfile.mkdtemp(prefix="db"))
    server = start_server(folder / "postgres")
    try:
        url = server.get_uri()
        upgrade(url)

        async def while_away_and_after(store: Store) -> None:
            for call in (store.database.ping, store.database.check):
                with pytest.raises(StoreError, match="cannot be used"):
                    await call()
            with pytest.raises(StoreError):
                await add_config(store, name="away")
            await asyncio.to_thread(server.ensure_postgres_running)
            await asyncio.gather(*(add_config(store, name=f"after {index}") for index in range(12)))
            assert await count(store) == 17
            await check_counts(store)

        async def all_of_it() -> None:
            store = Store(url)
            await store.database.check()
            await asyncio.gather(*(add_config(store, name=str(index)) for index in range(5)))
            with pytest.raises(StoreError, match="cannot be used"):
                await interrupted(store)
            await while_away_and_after(store)
            await store.database.close()

        async def interrupted(store: Store) -> None:
            async with store.write() as transaction:
                await transaction.lora_configs.add(ANN, lora_config("lost"))
                # As an administrator does: whoever is connected is cut off.
                await asyncio.to_thread(server._stop)
                await transaction.lora_configs.add(ANN, lora_config("more"))

        asyncio.run(all_of_it())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost:1/none",
        "postgresql://no-such-host.invalid/none",
        "postgresql:///none?host=/no/such/folder",
        "postgresql://localhost:1/none?sslmode=odd",
        "sqlite:////dev/null/folder/data.db",
    ],
)
async def test_a_database_that_is_not_there_is_said_in_words(url: str) -> None:
    store = Store(url)
    for call in (store.database.check, store.database.upgrade):
        with pytest.raises(StoreError, match=r"cannot be (used|made)") as raised:
            await call()
        assert raised.value.remedy
        assert "sqlalche.me" not in raised.value.message
    await store.database.close()


async def test_a_wrong_database_and_a_wrong_user_are_said_in_words(databases: Databases) -> None:
    url = await asyncio.to_thread(databases.new, "postgres")
    no_database, no_user = url.replace("/d", "/no-d", 1), url.replace("postgres:", "who:", 1)
    for wrong, words in ((no_database, r"no-d.* does not exist"), (no_user, "who")):
        store = Store(wrong)
        with pytest.raises(StoreError, match=words):
            await store.database.ping()
        await store.database.close()
    await asyncio.to_thread(databases.give_back, url)


async def test_a_folder_in_the_place_of_the_file_is_said_in_words(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreError, match="unable to open"):
        await store.database.check()
    await store.database.close()
    await asyncio.sleep(0.05)  # the driver's thread ends after its failure was told, and wants the loop for that


READER = """if True:
    import asyncio, os, sys
    from influencerai.errors import StoreError
    from influencerai.store import Store
    from tests.store.rows import add_config

    store = Store(sys.argv[1])

    async def run(name):
        try:
            await add_config(store, name=name)
        except StoreError as error:
            print(error)
        finally:
            await store.database.close()

    asyncio.run(run("before"))
    for file in sys.argv[2:]:
        os.chmod(file, 0o555)
    if os.getuid() == 0:
        os.setuid(65534)
    asyncio.run(run("after"))
"""


@pytest.mark.slow
async def test_a_file_that_may_not_be_written_is_said_in_words() -> None:
    # Not in pytest's folder, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        file = Path(name) / "data.db"
        await asyncio.to_thread(upgrade, f"sqlite:///{file}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READER, f"sqlite:///{file}", name, str(file), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await process.communicate()
        assert b"The database cannot be used: " in told
        assert process.returncode == 0
        store = Store(f"sqlite:///{file}")
        assert await count(store) == 1
        await store.database.close()
        Path(name).chmod(0o755)


@pytest.mark.slow
async def test_what_is_no_database_is_said_in_words_and_the_program_ends(tmp_path: Path) -> None:
    file = tmp_path / "data.db"
    file.write_bytes(b"This is a letter, not a database." * 200)
    code = "import asyncio, sys; from influencerai.store import Store; asyncio.run(Store(sys.argv[1]).database.check())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, f"sqlite:///{file}", stderr=asyncio.subprocess.PIPE
    )
    _, told = await asyncio.wait_for(process.communicate(), 20)
    assert b"StoreError: The database cannot be used: file is not a database" in told
    assert file.read_bytes().startswith(b"This is a letter")


async def test_a_damaged_file_is_said_in_words(file_store: Store, tmp_path: Path) -> None:
    await asyncio.gather(*(add_config(file_store, name=f"{index}" * 40, meta={"a": "b" * 900}) for index in range(9)))
    await file_store.database.close()
    file = tmp_path / "data.db"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(StoreError, match="malformed"):
        await add_config(file_store, name="new")
    with pytest.raises(StoreError, match="malformed"):
        await count(file_store)


async def test_a_full_disk_is_said_in_words_and_leaves_nothing_half_written(file_store: Store, tmp_path: Path) -> None:
    await add_config(file_store)
    with closing(sqlite3.connect(tmp_path / "data.db")) as plain:
        (pages,) = plain.execute("PRAGMA page_count").fetchone()
    async with file_store.database.write() as connection:
        await connection.execute(text(f"PRAGMA max_page_count = {pages + 3}"))
    long = {"a": "b" * 100_000}

    async def write_both() -> None:
        async with file_store.write() as transaction:
            await transaction.lora_configs.add(ANN, lora_config("small"))
            await transaction.lora_configs.add(ANN, lora_config("long", meta=long))

    with pytest.raises(StoreError, match="full"):
        await write_both()
    assert await count(file_store) == 1
    await add_config(file_store, name="small again")
    await check_counts(file_store)


async def test_a_value_that_cannot_be_kept_is_the_senders_mistake(store: Store) -> None:
    async def get(tenant: str, id: str) -> Any:
        async with store.read() as transaction:
            return await transaction.datasets.get(tenant, id)

    assert await get(ANN, "a\0b") is None
    if store.database.is_sqlite:
        assert await get("a\0b", "a") is None
    else:
        with pytest.raises(ValidationError, match="cannot keep a value of this: invalid byte sequence"):
            await get("a\0b", "a")
    assert await add_config(store)


WRITER = """if True:
    import asyncio, sys
    from influencerai.store import Store
    from tests.store.rows import ANN, lora_config, new_job

    async def run():
        async with Store(sys.argv[1]).write() as transaction:
            await transaction.lora_configs.add(ANN, lora_config("half"))
            await transaction.jobs.add(ANN, new_job())
            await transaction.counts.flush()
            print("in the middle", flush=True)
            await asyncio.sleep(60)

    asyncio.run(run())
"""


async def test_a_writer_that_is_killed_leaves_nothing_and_holds_up_nobody(store: Store, database_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, database_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"in the middle\n"
    waiting = asyncio.create_task(add_config(store, name="half"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await asyncio.wait_for(waiting, 10)
    assert (await count(store), await count(store, "job")) == (1, 0)
    assert (await add_job(store)).output_dir == "data/loras/face"
    await check_counts(store)


async def test_a_task_that_is_called_off_leaves_nothing_and_the_store_usable(store: Store) -> None:
    job = await add_job(store)

    async def write(index: int) -> None:
        async with store.write() as transaction:
            await transaction.lora_configs.add(ANN, lora_config(str(index)))
            await transaction.events.append(job.job.id, ("note", {"by": index}))

    async def read() -> None:
        async with store.read() as transaction:
            await transaction.datasets.page(ANN, DatasetQuery())
            await transaction.lora_configs.default(ANN)

    for index in range(60):
        tasks = [asyncio.create_task(write(index)), asyncio.create_task(read())]
        await asyncio.sleep(0.0004 * index)
        for task in tasks:
            task.cancel()
        # A writer that was called off and kept the lock would hold up the next one.
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert all(item is None or isinstance(item, asyncio.CancelledError) for item in found), found
    await asyncio.wait_for(asyncio.gather(*(add_config(store, name=f"after {index}") for index in range(30))), 20)
    async with store.read() as transaction:
        notes = len(await transaction.events.after(job.job.id, 1, limit=1000))
    assert await count(store) == 30 + notes  # each of them whole or not at all
    assert (await stored(store, job.job.id)).job == job.job
    await check_counts(store)


async def test_one_that_waits_for_its_turn_may_be_called_off(store: Store) -> None:
    async with store.write() as transaction:
        await transaction.lora_configs.add(ANN, lora_config("first"))
        waiting = [asyncio.create_task(add_config(store, name="first")) for _ in range(5)]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.wait_for(add_dataset(store), 10)
    assert await count(store) == 1


async def test_a_second_check_leaves_the_locks_of_open_connections(file_store: Store, tmp_path: Path) -> None:
    """Another process that closed the database deleted the log under a server whose locks a check had dropped."""
    async with file_store.read(), file_store.read():
        pass
    await add_config(file_store, name="kept")
    await file_store.database.check()
    await file_store.database.check()
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM jobs'); c.close()"
    other_process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, tmp_path / "data.db")
    assert await other_process.wait() == 0
    assert (tmp_path / "data.db-wal").exists()
    await add_config(file_store, name="after")
    with closing(sqlite3.connect(tmp_path / "data.db")) as other:
        assert other.execute("SELECT count(*) FROM lora_configs").fetchall() == [(2,)]
