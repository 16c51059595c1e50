"""Sampler: pictures of prompts from a base model, with a LoRA file or without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from influencerai.domain import ExecutionPlan, LoraConfig
from influencerai.domain.plain_values import path_text, plain
from influencerai.errors import ValidationError
from influencerai.files import safetensors_file
from influencerai.generate.picture_record import LoraUse, ModelIdentity, model_label
from influencerai.generate.sampling import DEFAULT_GUIDANCE, DEFAULT_STEPS, draw
from influencerai.lora.description import LoraDescription, describe_lora
from influencerai.lora.loading import load_lora
from influencerai.models.device import device_facts, fixed_execution, memory_errors
from influencerai.models.family import load_family
from influencerai.models.loadable_model import LoadableModel, find_loadable_model
from influencerai.models.precision import dtype_of
from influencerai.models.quiet import quiet_libraries
from influencerai.settings import Settings
from influencerai.training_plan import execution_plan

MAX_BATCH = 4
"""Pictures drawn at once; more would need more memory without being faster on a CPU."""

_ADAPTER = "lora"
_LESS_MEMORY = "Draw smaller pictures, or one per prompt."


class Sampler:
    """A base model, loaded when the first picture is drawn and kept.

        sampler = Sampler("sd15")
        rows = sampler.draw(["ohwx woman, smiling"], lora=run.lora_path, count=4)

    `plan` selects device and precision; by default the settings and this machine do. `label` is the model's name in
    the pictures' records; by default `model_name` without this machine's folders.
    """

    def __init__(
        self,
        model_name: str,
        *,
        settings: Settings | None = None,
        plan: ExecutionPlan | None = None,
        label: str | None = None,
    ) -> None:
        self._settings = settings or Settings.load()
        self._model_name = model_name
        self._label = label or model_label(model_name)
        self._given_plan = plan

    def draw(
        self,
        prompts: str | Sequence[str],
        *,
        lora: str | Path | None = None,
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

        Each carries its `PictureRecord`, which `picture_record.encoded` writes into a file.

        Args:
            prompts: one row of pictures each; one text is a list of one.
            lora: a LoRA file in either layout, applied at `strength`; without one the base model draws.
            size: pixels of a side; default: what the LoRA was trained at, else the base model's own size.
            on_progress: called with (pictures drawn, pictures in all), first with (0, all).

        Raises:
            ModelError: there is no such base model, or the LoRA file cannot be read or is for another family.
            OutOfMemoryError: the device is too small for pictures of this size.
            ValidationError: a value cannot be used.
        """
        prompts = checked_prompts(prompts)
        numbers = {"count": count, "seed": seed, "size": size, "steps": steps}
        count, seed, size, steps = (_checked_number(name, value) for name, value in numbers.items())
        lora = None if lora is None else Path(path_text(lora, field="lora"))
        quiet_libraries()
        description = self._checked_description(lora) if lora else None
        side = self._side(description, size)
        use = LoraUse(name=lora.stem, strength=strength, sha256=_lora_sha256(lora, description)) if lora else None
        total = len(prompts) * count
        on_progress(0, total)
        rows: list[list[Image]] = []
        with fixed_execution(self._plan), self._predicting(description), self._applied(lora, strength):
            for prompt in prompts:
                row: list[Image] = []
                for start in range(0, count, MAX_BATCH):
                    seeds = range(seed + start, seed + min(start + MAX_BATCH, count))
                    with memory_errors(self._plan.device_name, remedy=_LESS_MEMORY):
                        row += draw(
                            self._pipeline,
                            [prompt] * len(seeds),
                            seeds=list(seeds),
                            size=side,
                            steps=steps,
                            guidance=guidance,
                            negative_prompt=negative_prompt,
                            model=self._identity,
                            lora=use,
                        )
                    on_progress(len(rows) * count + len(row), total)
                rows.append(row)
        return rows

    def side(self, *, lora: Path | None, size: int | None) -> int:
        """Pixels of a side that `draw` would draw; raises what it would raise before it draws."""
        return self._side(self._checked_description(lora) if lora else None, size)

    def _side(self, lora: LoraDescription | None, size: int | None) -> int:
        return size or (lora and lora.resolution) or self._own_size

    @cached_property
    def _base(self) -> LoadableModel:
        return find_loadable_model(
            self._model_name,
            models_dirs=self._settings.models_dirs,
            allow_download=self._settings.allow_downloads,
        )

    @cached_property
    def _plan(self) -> ExecutionPlan:
        if self._given_plan:
            return self._given_plan
        config = LoraConfig(name="sample", model_name=self._model_name)
        return execution_plan(
            config,
            device_facts(self._settings.device),
            threads=self._settings.usable_threads,
            deterministic=self._settings.deterministic,
        )[0]

    @cached_property
    def _pipeline(self) -> Any:
        family = load_family(self._base.family)
        device = torch.device(self._plan.device)
        return family.pipeline(self._base, device=device, dtype=dtype_of(self._plan.precision))

    @cached_property
    def _identity(self) -> ModelIdentity:
        base = self._base
        sha256 = base.fingerprint() if base.layout == "single_file" else None
        return ModelIdentity(name=self._label, sha256=sha256)

    @property
    def _own_size(self) -> int:
        return load_family(self._base.family).own_size(self._base)

    @contextmanager
    def _applied(self, lora: Path | None, strength: float) -> Iterator[None]:
        """The pipeline has the LoRA; afterwards it is the base model again."""
        if lora is None:
            yield
            return
        pipeline = self._pipeline
        try:
            self._load_lora(lora, strength)
            yield
        finally:
            pipeline.unload_lora_weights()

    def _load_lora(self, lora: Path, strength: float) -> None:
        with memory_errors(self._plan.device_name, remedy="Use a device with more memory, or a smaller LoRA."):
            load_lora(self._pipeline, lora, name=_ADAPTER, family=load_family(self._base.family), base=self._base.path)
            self._pipeline.set_adapters(_ADAPTER, strength)

    @contextmanager
    def _predicting(self, lora: LoraDescription | None) -> Iterator[None]:
        """Sample what a LoRA of ours was trained to predict on this very base model: its config may have overridden it.

        On another base model the LoRA is used as any other, by what that model predicts.
        """
        own, base = self._pipeline.scheduler, self._base
        if lora and lora.prediction_type and lora.base_fingerprint == base.fingerprint():
            base = replace(base, prediction_type=lora.prediction_type, zero_terminal_snr=bool(lora.zero_terminal_snr))
            self._pipeline.scheduler = load_family(base.family).sampling_scheduler(base)
        try:
            yield
        finally:
            self._pipeline.scheduler = own

    def _checked_description(self, lora: Path) -> LoraDescription:
        """Return the LoRA's description after checking that it fits this base model."""
        found = describe_lora(lora)
        found.check_family(self._base.family, lora=lora, model_name=self._model_name)
        return found


def checked_prompts(prompts: object) -> list[str]:
    """The prompts as a list; one text is a list of one.

    Raises:
        ValidationError: they are no texts, or there are none.
    """
    found = plain(prompts)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list | tuple) or not found or not all(isinstance(text, str) for text in found):
        raise ValidationError(field_errors={"prompts": ["Input should be a text or a list of texts"]})
    return list(found)


def _checked_number(name: str, value: Any) -> Any:
    number, least = plain(value), 0 if name == "seed" else 1
    if number is None and name == "size":
        return None
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValidationError(field_errors={name: [f"Input should be an integer of {least} or more"]})
    return number


def _lora_sha256(lora: Path, description: LoraDescription | None) -> str:
    """The hash that the file's header names, or that of its tensors."""
    return (description and description.sha256) or safetensors_file.model_hash(lora.read_bytes())
