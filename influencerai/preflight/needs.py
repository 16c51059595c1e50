"""Needs: what a job needs of a node, by its configuration, its base model, and what an earlier attempt has fixed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

from influencerai.basemodel import find_base_model, unet_size
from influencerai.basemodel.search import ALIASES
from influencerai.domain import LoraConfig
from influencerai.errors import InfluencerAIError
from influencerai.scheduling.resource_options import Way, ways_to_train
from influencerai.settings import Settings
from influencerai.training_plan.execution import DeviceFacts, DeviceKind, execution_plan

_UNKNOWN_FAMILY = "unknown"
UNPLANNABLE = json.dumps({"cpu": []})
"""The plan of a job that cannot be planned: no way to train it."""


def plan_needs(config: LoraConfig, settings: Settings, *, plan: Mapping[str, Any] | None = None) -> str:
    """The ways to train a job, by kind of device, as JSON. Reads the base model's configuration and headers.

    `plan` is what an earlier attempt has frozen.
    """
    family, parameters = _size(config.model_name, settings)
    kinds: tuple[DeviceKind, ...] = ("cuda", "cpu")
    frozen = None
    if plan is not None:
        frozen = plan["spec"]["plan"]
        kinds = (plan.get("kind") or frozen["device"],)
    elif settings.device != "auto":
        kinds = (settings.device,)
    found: dict[str, Any] = {}
    for kind in kinds:
        ways = ways_to_train(
            config,
            family=family,
            kind=kind,
            threads=settings.job_threads if frozen is None else frozen["threads"],
            precision=_precision(config, kind) if frozen is None else frozen["precision"],
            denoiser_parameters=parameters,
            is_shared=settings.share_gpus and parameters is not None,
            gpus=None if frozen is None else frozen.get("worldSize", 1),
            fixed=None if frozen is None else (frozen["microBatch"], frozen["gradientCheckpointing"]),
        )
        found[kind] = [way.to_document() for way in (*_on_the_same(ways, plan), *ways)]
    return json.dumps(found)


def ways_on(needs: str, *, has_gpus: bool) -> tuple[Way, ...]:
    """The ways of a plan on a cluster; one that has GPUs trains on them alone."""
    ways = _ways(needs)
    kind = "cuda" if (has_gpus and "cuda" in ways) or "cpu" not in ways else "cpu"
    return ways[kind]


@lru_cache(maxsize=10_000)
def _ways(needs: str) -> dict[str, tuple[Way, ...]]:
    """Cached, since every decision reads what all waiting jobs need, and many need the same."""
    return {kind: tuple(Way.from_document(way) for way in ways) for kind, ways in json.loads(needs).items()}


def _on_the_same(ways: tuple[Way, ...], plan: Mapping[str, Any] | None) -> list[Way]:
    """A run that has begun on one kind of GPU goes on there where the cluster has it: another rounds differently."""
    accelerator = (plan or {}).get("accelerator")
    if accelerator is None:
        return []
    return [replace(way, needs=replace(way.needs, accelerator=accelerator)) for way in ways]


def _size(name: str, settings: Settings) -> tuple[str, int | None]:
    """Family of the base model and parameters of its UNet, as far as this machine can tell."""
    with suppress(InfluencerAIError, OSError):
        base = find_base_model(name, models_dirs=settings.models_dirs, as_path=False)
        return base.family, unet_size.count_parameters(base)
    alias = next((short for short, known in ALIASES.items() if name in (short, known.hub_id)), None)
    return alias or _UNKNOWN_FAMILY, None


def _precision(config: LoraConfig, kind: DeviceKind) -> Literal["fp32", "bf16", "fp16"]:
    """As a device of the kind would have it; of a GPU the newer kind: bf16 and fp16 need as much."""
    device = DeviceFacts(kind=kind, name="", has_bf16=True, build="")
    return execution_plan(config, device, threads=1)[0].precision
