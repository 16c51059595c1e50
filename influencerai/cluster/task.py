"""Task: what runs on a node; the supervisor of one attempt, whose training is a child that it can kill.

A worker process of Ray's carries out one task after the other: what the module keeps, the next task finds. So the fork
server, with the trainer imported, is warm from the second attempt on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import ray

from influencerai.cluster.probe import Facts, look
from influencerai.errors import FencedOffError
from influencerai.logs import configure_logs
from influencerai.planning.placement import Holding
from influencerai.planning.ways import Way
from influencerai.settings import Settings
from influencerai.store import Store
from influencerai.store.queue import Lease
from influencerai.worker.attempt import JobAttempt
from influencerai.worker.child import ForkServer
from influencerai.worker.order import Placement
from influencerai.worker.worker import carry_out

_fork_server = ForkServer()
_log = logging.getLogger(__name__)


def probe(root: str, models_dir: str, marker: str, answer: str) -> Facts:
    """What this node says of itself."""
    return look(Path(root), Path(models_dir), marker, answer)


def warm() -> None:
    """Import the trainer, for the attempt that this process is given next; returns at once."""
    _fork_server.warm()


def train(
    document: dict[str, Any],
    lease: Lease,
    held: Holding,
    way: Way,
    accelerator: str | None,
    is_pretended: bool,
) -> None:
    """Carry out one attempt, to the end of the job or its return to the queue.

    Args:
        document: settings, from `Settings.worker_document`.
        lease: what the dispatcher has claimed.
        held: what it has placed the attempt on.
        way: how it is to train.
        accelerator: name of the node's GPUs.
        is_pretended: whether the node's GPUs are none, and the CPU does their work.
    """
    settings = Settings(**document)
    configure_logs(settings)
    asyncio.run(_train(settings, lease, held, way, accelerator, is_pretended))


async def _train(
    settings: Settings, lease: Lease, held: Holding, way: Way, accelerator: str | None, is_pretended: bool
) -> None:
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    held = _as_given(held, given)
    placement = Placement(
        held=held,
        way=way,
        device="cuda" if held.devices and not is_pretended else "cpu",
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES") if held.devices else None,
        accelerator=accelerator if held.devices else None,
    )
    store = Store(settings.database_url)
    try:
        async with store.write() as transaction:
            job = await transaction.queue.begin(lease, held=held, seconds=settings.lease_seconds)
        _log.info("Attempt %s begins.", lease.fence, extra={"job_id": lease.job_id, "tenant": lease.tenant_id})
        attempt = JobAttempt(
            lease,
            job,
            store=store,
            settings=settings,
            fork_server=_fork_server,
            stopping=asyncio.Event(),
            placement=placement,
        )
        await carry_out(attempt, lease, store=store, settings=settings)
    except FencedOffError as error:
        _log.warning("Another attempt has the job: %s", error)
    finally:
        await store.database.close()
        _fork_server.warm()


def _as_given(held: Holding, ids: list[str]) -> Holding:
    """The GPUs that Ray has really given, which may be others of the same node."""
    if len(ids) != len(held.devices) or not all(id.isdigit() for id in ids):
        return held
    shares = [held.devices[index] for index in sorted(held.devices)]
    return Holding(
        node=held.node,
        cpus=held.cpus,
        memory_gb=held.memory_gb,
        devices=dict(zip(sorted(int(id) for id in ids), shares, strict=True)),
    )
