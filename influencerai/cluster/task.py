"""Task: what runs on a node; the supervisor of one attempt, whose training is a child that it can kill.

A worker process of Ray's carries out one task after the other: what the module keeps, the next task finds. So the fork
server, with the trainer imported, is warm from the second attempt on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from typing import Any

import ray

from influencerai.cluster.probe import Facts, look
from influencerai.errors import FencedOffError, InfluencerAIError
from influencerai.job_process.supervisor import ForkServer
from influencerai.logs import configure_logs
from influencerai.scheduling.placement import Allocation, Node
from influencerai.scheduling.resource_options import ResourceOption
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.queue import Lease
from influencerai.worker.attempt import JobAttempt
from influencerai.worker.training_request import Placement
from influencerai.worker.worker import carry_out

_SETTLE_SECONDS = 60.0
"""Longer than a writer waits for another one."""
_fork_server = ForkServer()
_log = logging.getLogger(__name__)


def probe(document: dict[str, Any], marker: str, answer: str) -> Facts:
    """What this node says of itself; it must reach the database too."""
    settings = Settings(**document)
    facts = look(settings.root, settings.models_dir, marker, answer)
    try:
        asyncio.run(_ask_database(settings))
    except InfluencerAIError as error:
        _log.warning("The database: %s", error)
        problem = "It does not reach the server's database."
        return replace(facts, problem=problem if facts.problem is None else f"{facts.problem} {problem}")
    return facts


def warm() -> None:
    """Import the trainer, for the attempt that this process is given next; returns at once."""
    _fork_server.warm()


def train(
    document: dict[str, Any],
    lease: Lease,
    allocation: Allocation,
    option: ResourceOption,
    node: Node,
    is_pretended: bool,
) -> None:
    """Carry out one attempt, to the end of the job or its return to the queue.

    Args:
        document: settings, from `Settings.worker_document`.
        lease: what the dispatcher has claimed.
        held: what it has placed the attempt on.
        way: how it is to train.
        node: what it was placed on.
        is_pretended: whether the node's GPUs are none, and the CPU does their work.
    """
    settings = Settings(**document)
    settings.apply_files_mask()
    configure_logs(settings)
    asyncio.run(_train(settings, lease, allocation, option, node, is_pretended))


async def _train(
    settings: Settings, lease: Lease, allocation: Allocation, option: ResourceOption, node: Node, is_pretended: bool
) -> None:
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    allocation = _as_given(allocation, given, of=len(node.devices))
    placement = Placement(
        allocation=allocation,
        option=option,
        device="cuda" if allocation.devices and not is_pretended else "cpu",
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES") if allocation.devices else None,
        accelerator=node.devices[min(allocation.devices)].name if allocation.devices else None,
    )
    store = Store(settings.database_url)
    try:
        held_since = time.monotonic()
        async with store.write() as transaction:
            job = await transaction.queue.begin(lease, allocation=allocation, seconds=settings.lease_seconds)
        _log.info("Attempt %s begins.", lease.fence, extra={"job_id": lease.job_id, "tenant": lease.tenant_id})
        attempt = JobAttempt(
            lease,
            job,
            store=store,
            settings=settings,
            fork_server=_fork_server,
            stopping=asyncio.Event(),
            placement=placement,
            held_since=held_since,
        )
        await carry_out(attempt, lease, store=store, settings=settings)
    except FencedOffError as error:
        _log.warning("Another attempt has the job: %s", error)
    finally:
        await _settle()
        await store.database.close()
        _fork_server.warm()


async def _ask_database(settings: Settings) -> None:
    store = Store(settings.database_url)
    try:
        await store.database.check(make=False)
    finally:
        await store.database.close()


async def _settle() -> None:
    """Wait for what was called off: a write that waits for its turn would keep SQLite locked beyond this event loop."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=_SETTLE_SECONDS)


def _as_given(allocation: Allocation, ids: list[str], *, of: int) -> Allocation:
    """The GPUs that Ray has really given, which may be others of the node's `of`; it calls them by its own numbers."""
    if len(ids) != len(allocation.devices) or not all(id.isdigit() and int(id) < of for id in ids):
        return allocation
    shares = [allocation.devices[index] for index in sorted(allocation.devices)]
    return replace(allocation, devices=dict(zip(sorted(int(id) for id in ids), shares, strict=True)))
