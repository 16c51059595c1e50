"""Resource options of a job, from its configuration, its base model and what an earlier attempt has fixed."""

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
from influencerai.scheduling.resource_options import ResourceOption, resource_options
from influencerai.settings import Settings
from influencerai.training_plan.execution import DeviceFacts, DeviceKind, execution_plan

_UNKNOWN_FAMILY = "unknown"
UNPLANNABLE = json.dumps({"cpu": []})
"""Of a job that cannot be planned: it has no resource option."""


def plan_resources(config: LoraConfig, settings: Settings, *, plan: Mapping[str, Any] | None = None) -> str:
    """The resource options of a job, by kind of device, as JSON. Reads the base model's configuration and headers.

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
        options = resource_options(
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
        found[kind] = [option.to_document() for option in (*_on_the_same(options, plan), *options)]
    return json.dumps(found)


def options_on(resources: str, *, has_gpus: bool) -> tuple[ResourceOption, ...]:
    """The options on a cluster; one that has GPUs trains on GPUs alone."""
    options = _decoded(resources)
    kind = "cuda" if (has_gpus and "cuda" in options) or "cpu" not in options else "cpu"
    return options[kind]


@lru_cache(maxsize=10_000)
def _decoded(resources: str) -> dict[str, tuple[ResourceOption, ...]]:
    """Cached: every decision reads the options of all waiting jobs, and many jobs have the same."""
    return {
        kind: tuple(map(ResourceOption.from_document, documents)) for kind, documents in json.loads(resources).items()
    }


def _on_the_same(options: tuple[ResourceOption, ...], plan: Mapping[str, Any] | None) -> list[ResourceOption]:
    """A run that has begun on one kind of GPU goes on there where the cluster has it: another rounds differently."""
    accelerator = (plan or {}).get("accelerator")
    if accelerator is None:
        return []
    return [replace(option, request=replace(option.request, accelerator=accelerator)) for option in options]


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
