"""Draws: every random number of a training, as a pure function of the seed and what it is for.

Nothing reads or advances a global generator, so a run that is interrupted and continued draws what an
uninterrupted one draws, and neither the batch nor the rank that a sample lands in matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from influencerai.domain import TrainingOptions
from influencerai.training_plan import SampleRef

Key = str | int


def uniform(*key: Key) -> float:
    """A float in [0, 1), the 53 leading bits of the key's BLAKE2b hash."""
    return (_hash(key) >> 11) / 2**53


def normal(shape: Sequence[int], *key: Key) -> Tensor:
    """Standard normal float32 noise on the CPU; the same on every device that it is moved to."""
    generator = torch.Generator().manual_seed(_hash(key))
    return torch.randn(*shape, generator=generator)


def shuffled(items: Sequence[str], *key: Key) -> list[str]:
    """Return the items in a pseudorandom order determined by the key."""
    order = sorted(range(len(items)), key=lambda index: _hash((*key, index)))
    return [items[index] for index in order]


def _hash(key: Sequence[Key]) -> int:
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class SampleDraws:
    """The draws of one sample in one optimizer step."""

    options: TrainingOptions
    step: int
    ref: SampleRef

    def _key(self, purpose: str) -> tuple[Key, ...]:
        return (self.options.seed, purpose, self.step, self.ref.sample, self.ref.repeat)

    @property
    def flip(self) -> bool:
        return self.options.flip and uniform(*self._key("flip")) < 0.5

    @property
    def timestep_draw(self) -> float:
        """Uniform in [0, 1); the objective turns it into a timestep."""
        return uniform(*self._key("timestep"))

    def caption(self, caption: str) -> str:
        """The caption for this step: dropped, shuffled or unchanged."""
        if self.options.caption_dropout and uniform(*self._key("dropout")) < self.options.caption_dropout:
            return ""
        if not self.options.shuffle_tags:
            return caption
        tags = [tag.strip() for tag in caption.split(",")]
        kept, rest = tags[: self.options.keep_tokens], tags[self.options.keep_tokens :]
        return ", ".join([*kept, *shuffled(rest, *self._key("shuffle"))])

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Noise [channels, height, width], with the per-channel offset of `noise_offset` (0 in most trainings)."""
        noise = normal(shape, *self._key("noise"))
        if self.options.noise_offset:
            noise += self.options.noise_offset * normal((shape[0], 1, 1), *self._key("offset"))
        return noise

    def posterior(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise that samples the VAE's posterior, [channels, height, width]."""
        return normal(shape, *self._key("posterior"))
