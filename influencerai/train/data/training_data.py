"""TrainingData: the encoded dataset, and the batches that are made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from influencerai.domain import TrainingSpec
from influencerai.models.draws import SampleDraws, normal, uniform
from influencerai.models.family import Conditioning, Geometry
from influencerai.train.data.encoding import Latents, geometry
from influencerai.training_plan import SampleRef, TrainingPlan

VALIDATION_LEVELS = 4
"""Noise levels per validation image, one in each quarter of the schedule."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one forward pass needs, batch first, on the training device.

    latents and noise are float32 [batch, channels, height, width]; timestep_draw is float64 [batch],
    uniform in [0, 1): the objective makes timesteps of it.
    captions stand for conditioning that is still to be computed where a text encoder is trained.
    """

    latents: Tensor
    noise: Tensor
    timestep_draw: Tensor
    geometry: Geometry
    captions: list[str]
    conditioning: Conditioning | None

    def __len__(self) -> int:
        return len(self.captions)


class TrainingData:
    """Encoded samples in memory. `conditioning` is None while a text encoder is trained."""

    def __init__(
        self,
        spec: TrainingSpec,
        plan: TrainingPlan,
        *,
        latents: Mapping[tuple[int, bool], Latents],
        conditioning: Mapping[str, Conditioning] | None,
        device: torch.device,
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._latents = latents
        self._conditioning = conditioning
        self._device = device

    def training_batch(self, step: int, refs: Sequence[SampleRef]) -> Batch:
        """The samples `refs` as optimizer step `step` sees them."""
        draws = [SampleDraws(self._spec.options, step, ref) for ref in refs]
        latents, noise = [], []
        for ref, draw in zip(refs, draws, strict=True):
            posterior = self._latents[ref.sample, draw.flip]
            shape = posterior.mean.shape
            latents.append(posterior.mean + posterior.std * draw.posterior(shape))
            noise.append(draw.noise(shape))
        return self._batch(
            [ref.sample for ref in refs],
            latents=latents,
            noise=noise,
            timestep_draws=[draw.timestep_draw for draw in draws],
            captions=[draw.caption(self._spec.samples[draw.ref.sample].caption) for draw in draws],
        )

    def validation_batches(self) -> Iterator[Batch]:
        """The held-out images, each at fixed noise levels with fixed noise: equal at every call."""
        seed = self._spec.seed
        for index in self._plan.validation:
            sample = self._spec.samples[index]
            mean = self._latents[index, False].mean
            for level in range(VALIDATION_LEVELS):
                key = (seed, "validation", sample.sha256, level)
                yield self._batch(
                    [index],
                    latents=[mean],
                    noise=[normal(mean.shape, *key)],
                    timestep_draws=[(level + uniform(*key)) / VALIDATION_LEVELS],
                    captions=[sample.caption],
                )

    def _batch(
        self,
        indices: list[int],
        *,
        latents: list[Tensor],
        noise: list[Tensor],
        timestep_draws: list[float],
        captions: list[str],
    ) -> Batch:
        sizes = geometry(self._spec, self._plan, indices)
        conditioning = None
        if self._conditioning is not None:
            entries = [self._conditioning[caption] for caption in captions]
            conditioning = {
                name: self._on_device(torch.stack([entry[name] for entry in entries])) for name in entries[0]
            }
        return Batch(
            latents=self._on_device(torch.stack(latents)),
            noise=self._on_device(torch.stack(noise)),
            timestep_draw=self._on_device(torch.tensor(timestep_draws, dtype=torch.float64)),
            geometry=Geometry(
                original=self._on_device(sizes.original),
                crop=self._on_device(sizes.crop),
                target=self._on_device(sizes.target),
            ),
            captions=captions,
            conditioning=conditioning,
        )

    def _on_device(self, tensor: Tensor) -> Tensor:
        """Copied without waiting for the device, which only works from pinned memory."""
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
