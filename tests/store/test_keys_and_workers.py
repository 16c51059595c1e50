"""API keys and the signs of life of workers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from influencerai.errors import NotFoundError, ValidationError
from influencerai.service.keys import KeyService
from influencerai.store import Store
from tests.store.rows import ANN, BOB

pytestmark = pytest.mark.anyio


async def test_a_key_is_found_by_its_secret_until_it_is_revoked(store: Store) -> None:
    async with store.write() as transaction:
        key, secret = await transaction.api_keys.add(tenant=ANN, scope="full", name="laptop")
        worker, worker_secret = await transaction.api_keys.add(tenant=None, scope="worker", name="gpu")
        await transaction.api_keys.add(tenant=BOB, scope="full", name="bob")
    assert secret.startswith(key.prefix)
    assert len(key.prefix) < len(secret) / 3
    async with store.read() as transaction:
        assert await transaction.api_keys.find(secret) == key
        assert await transaction.api_keys.find(worker_secret) == worker
        for wrong in (secret[:-1], secret + "x", key.prefix, ""):
            assert await transaction.api_keys.find(wrong) is None
        assert [item.name for item in await transaction.api_keys.all()] == ["laptop", "gpu", "bob"]
        assert await transaction.api_keys.all(tenant=ANN) == [key]
    async with store.write() as transaction:
        revoked = await transaction.api_keys.revoke(key.id)
        await asyncio.sleep(0.002)
        assert await transaction.api_keys.revoke(key.id) == revoked
        assert await transaction.api_keys.revoke("none") is None
        assert await transaction.api_keys.find(secret) == revoked
        assert await transaction.api_keys.find(worker_secret) == worker
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert (key.state, revoked.state) == ("active", "revoked")


async def test_a_key_expires_on_the_databases_clock(store: Store) -> None:
    async with store.write() as transaction:
        _, secret = await transaction.api_keys.add(
            tenant=ANN, scope="read", name="", lifetime=timedelta(milliseconds=150)
        )
        _, lasting = await transaction.api_keys.add(tenant=ANN, scope="full", name="", lifetime=timedelta(days=30))
        found = [await transaction.api_keys.find(item) for item in (secret, lasting)]
    assert [item and item.state for item in found] == ["active", "active"]
    await asyncio.sleep(0.2)
    async with store.read() as transaction:
        found = [await transaction.api_keys.find(item) for item in (secret, lasting)]
    assert [item and item.state for item in found] == ["expired", "active"]


async def test_the_last_use_of_a_key_is_written_once_a_minute(store: Store) -> None:
    service = KeyService(store)
    key, secret = await service.create(tenant=ANN)
    assert key.used_at is None
    await service.authenticate(secret)
    await service.write_uses()
    [first] = await service.list()
    assert first.used_at is not None
    await asyncio.sleep(0.005)
    await service.authenticate(secret)
    await service.write_uses()
    assert await service.list() == [first]
    await service.write_uses(at_once=True)
    [last] = await service.list()
    assert last.used_at is not None
    assert last.used_at > first.used_at


async def test_a_key_is_revoked_by_how_its_secret_begins(store: Store) -> None:
    service = KeyService(store)
    (key, _), (other, _) = await service.create(tenant=ANN), await service.create(tenant=ANN)
    for text in ("", "iak_", "iak_%", key.prefix[:7], "x" * 12, key.id[:8]):
        with pytest.raises(NotFoundError):
            await service.revoke(text)
    with pytest.raises(ValidationError):
        await service.create(tenant=None, scope="read")
    with pytest.raises(ValidationError):
        await service.create(tenant=ANN, scope="admin")
    assert (await service.revoke(f"{key.prefix}...")).id == key.id
    assert (await service.revoke(other.id)).id == other.id
    assert {item.state for item in await service.list()} == {"revoked"}


async def test_no_secret_lies_in_the_database(store: Store, database_url: str) -> None:
    async with store.write() as transaction:
        _, secret = await transaction.api_keys.add(tenant=ANN, scope="full", name="laptop")
    async with store.database.read() as connection:
        rows = await connection.exec_driver_sql("SELECT * FROM api_keys")
        assert secret.removeprefix("iak_") not in repr(rows.all())


async def test_workers_are_seen_while_they_say_that_they_are_there(store: Store) -> None:
    async def seen(seconds: float = 60) -> list[tuple[str, str, str | None]]:
        async with store.read() as transaction:
            return [
                (item.id, item.node, item.job_id) for item in await transaction.workers.seen(within_seconds=seconds)
            ]

    async with store.write() as transaction:
        await transaction.workers.greet("w1", node="a")
        await transaction.workers.greet("w2", node="b", job_id="j")
    assert await seen() == [("w1", "a", None), ("w2", "b", "j")]
    await asyncio.sleep(0.15)
    async with store.write() as transaction:
        await transaction.workers.greet("w1", node="a", job_id="k")
    assert await seen(0.1) == [("w1", "a", "k")]
    async with store.write() as transaction:
        await transaction.workers.forget(unseen_seconds=0.1)
    assert await seen() == [("w1", "a", "k")]
    async with store.write() as transaction:
        await transaction.workers.leave("w1")
        await transaction.workers.leave("w1")
    assert await seen() == []
