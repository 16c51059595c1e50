"""Store: transactions over all nouns. The only package with SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.store.api_keys import ApiKeys
from influencerai.store.attempts import Attempts
from influencerai.store.counts import Counts
from influencerai.store.database import Database
from influencerai.store.datasets import Datasets
from influencerai.store.events import Events
from influencerai.store.idempotency import IdempotencyKeys
from influencerai.store.jobs import Jobs
from influencerai.store.lora_configs import LoraConfigs
from influencerai.store.nodes import Nodes
from influencerai.store.pending_jobs import PendingJobs
from influencerai.store.queue import Queue
from influencerai.store.quotas import Quotas
from influencerai.store.request_counts import RequestCounts
from influencerai.store.reservations import Reservations
from influencerai.store.tenants import lock_tenant
from influencerai.store.usage import UsageRecords
from influencerai.store.workers import Workers


class Transaction:
    """The nouns, all seen at one moment and changed together or not at all."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.counts = Counts(connection)
        self.datasets = Datasets(connection, self.counts)
        self.lora_configs = LoraConfigs(connection, self.counts)
        self.jobs = Jobs(connection, self.counts)
        self.events = Events(connection)
        self.queue = Queue(connection, self.counts)
        self.pending_jobs = PendingJobs(connection)
        self.idempotency_keys = IdempotencyKeys(connection)
        self.api_keys = ApiKeys(connection)
        self.workers = Workers(connection)
        self.nodes = Nodes(connection)
        self.request_counts = RequestCounts(connection)
        self.attempts = Attempts(connection, self.counts)
        self.quotas = Quotas(connection)
        self.reservations = Reservations(connection)
        self.usage = UsageRecords(connection, self.counts)

    async def lock_tenant(self, tenant: str) -> None:
        """Until the end, nobody else decides about all that the tenant has; taken before any other lock."""
        await lock_tenant(self._connection, tenant)


class Store:
    """Everything durable, in the database that `url` names (sqlite:///path or postgresql://...)."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A transaction that only reads."""
        async with self.database.read() as connection:
            yield Transaction(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """A transaction that writes: committed at the end of the block, rolled back on an error."""
        async with self.database.write() as connection:
            transaction = Transaction(connection)
            yield transaction
            await transaction.counts.flush()
