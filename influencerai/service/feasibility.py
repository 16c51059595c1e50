"""Feasibility: whether any node of the cluster could ever take a job, asked before the job waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from influencerai.domain import LoraConfig
from influencerai.errors import InfluencerAIError
from influencerai.preflight.job_resources import options_on, plan_resources
from influencerai.scheduling.placement import Capacity
from influencerai.scheduling.shortfall import never_starts
from influencerai.settings import Settings
from influencerai.store.nodes import NodeState


async def impossibility(config: LoraConfig, seen: Sequence[NodeState], settings: Settings) -> str | None:
    """Why no ready node could ever take a job of this configuration; None where one could, or there is no cluster."""
    nodes = [state.node for state in seen if state.problem is None and not state.is_draining]
    if not nodes:
        return None
    try:
        resources = await asyncio.to_thread(plan_resources, config, settings)
    except (InfluencerAIError, OSError):  # of which the base model's own warning tells
        return None
    options = [option.request for option in options_on(resources, has_gpus=any(node.devices for node in nodes))]
    capacity = Capacity(nodes)
    if not options or any(capacity.could_ever(option) for option in options):
        return None
    return never_starts(nodes, options)
