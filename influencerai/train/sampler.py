"""Sampler: pictures of prompts from a base model, with a LoRA file or without."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from influencerai import artifacts
from influencerai.domain import ExecutionPlan, LoraConfig
from influencerai.errors import ModelError
from influencerai.settings import Settings
from influencerai.train.base_model import find_base_model
from influencerai.train.device import execution_plan
from influencerai.train.family import load_family
from influencerai.train.precision import dtype_of
from influencerai.train.sampling import DEFAULT_GUIDANCE, DEFAULT_STEPS, draw

MAX_BATCH = 4
"""Pictures drawn at once; more would need more memory without being faster on a CPU."""

_ADAPTER = "lora"


@dataclass(frozen=True, kw_only=True)
class LoraDescription:
    """What a LoRA file says of itself; None where it does not."""

    model_name: str | None
    base_model_version: str | None
    resolution: int | None
    """Pixels: the shorter side that it was trained at."""


class Sampler:
    """A base model, loaded when the first picture is drawn and kept.

        sampler = Sampler("sd15")
        rows = sampler.draw(["ohwx woman, smiling"], lora=run.lora_path, count=4)

    `plan` says on what it draws; by default what the settings and this machine give.
    """

    def __init__(self, model_name: str, *, settings: Settings | None = None, plan: ExecutionPlan | None = None) -> None:
        self._settings = settings or Settings.load()
        self._model_name = model_name
        self._plan = plan

    def draw(
        self,
        prompts: Sequence[str],
        *,
        lora: Path | None = None,
        strength: float = 1.0,
        count: int = 1,
        seed: int = 0,
        size: int | None = None,
        steps: int = DEFAULT_STEPS,
        guidance: float = DEFAULT_GUIDANCE,
        negative_prompt: str = "",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[list[Image]]:
        """`count` square pictures of every prompt, a list per prompt; picture i comes from the seed `seed` + i.

        Args:
            prompts: one row of pictures each.
            lora: a LoRA file in either layout, applied at `strength`; without one the base model draws.
            size: pixels of a side; default: what the LoRA was trained at, else the base model's own size.
            on_progress: called with (pictures drawn, pictures in all), first with (0, all).

        Raises:
            ModelError: there is no such base model, or the LoRA file cannot be read or is for another family.
        """
        description = describe_lora(lora) if lora else None
        if description:
            self._check_family(lora, description)
        side = size or (description.resolution if description else None) or self._own_size
        total = len(prompts) * count
        on_progress(0, total)
        rows: list[list[Image]] = []
        with self._applied(lora, strength):
            for prompt in prompts:
                row: list[Image] = []
                for start in range(0, count, MAX_BATCH):
                    seeds = range(seed + start, seed + min(start + MAX_BATCH, count))
                    row += draw(
                        self._pipeline,
                        [prompt] * len(seeds),
                        seeds=list(seeds),
                        size=side,
                        steps=steps,
                        guidance=guidance,
                        negative_prompt=negative_prompt,
                    )
                    on_progress(len(rows) * count + len(row), total)
                rows.append(row)
        return rows

    @cached_property
    def _base(self) -> Any:
        return find_base_model(
            self._model_name,
            models_dirs=self._settings.models_dirs,
            allow_download=self._settings.allow_downloads,
        )

    @cached_property
    def _pipeline(self) -> Any:
        plan = self._plan
        if plan is None:
            config = LoraConfig(name="sample", model_name=self._model_name)
            plan, _ = execution_plan(config, device=self._settings.device, threads=self._settings.usable_threads)
        family = load_family(self._base.family)
        return family.pipeline(self._base, device=torch.device(plan.device), dtype=dtype_of(plan.precision))

    @property
    def _own_size(self) -> int:
        return int(self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor)

    @contextmanager
    def _applied(self, lora: Path | None, strength: float) -> Iterator[None]:
        """The pipeline has the LoRA; afterwards it is the base model again."""
        if lora is None:
            yield
            return
        try:
            self._pipeline.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name=_ADAPTER)
        except (ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"{lora} does not fit {self._base.path}: {error}",
                remedy="Name the base model that it was trained on.",
            ) from error
        try:
            self._pipeline.set_adapters(_ADAPTER, strength)
            yield
        finally:
            self._pipeline.unload_lora_weights()

    def _check_family(self, lora: Path | None, description: LoraDescription) -> None:
        family = load_family(self._base.family)
        said = description.base_model_version
        if said and said != family.ss_base_model_version:
            raise ModelError(
                f"{lora} was trained on a base of the kind {said}; '{self._model_name}' is "
                f"{family.ss_base_model_version}.",
                remedy="Name the base model that it was trained on.",
            )


def describe_lora(path: Path) -> LoraDescription:
    """Read what the header of a LoRA file tells.

    Raises:
        ModelError: the file is missing, truncated or no safetensors file.
    """
    metadata, _ = artifacts.read_safetensors_header(path, error=ModelError)
    sides = re.findall(r"\d+", metadata.get("modelspec.resolution") or metadata.get("ss_resolution") or "")
    return LoraDescription(
        model_name=metadata.get("ss_sd_model_name"),
        base_model_version=metadata.get("ss_base_model_version"),
        resolution=min(int(side) for side in sides) if sides else None,
    )
