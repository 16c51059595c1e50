"""Batches: which samples each step of a training sees, and after which epochs something happens.

The order of the samples comes from hashes of (seed, epoch, sample), not from a generator with a state, so a
run that is continued sees what an uninterrupted one sees. Epochs count from 1, as in file names and events;
steps and samples count from 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from influencerai.domain import LoraConfig, SampleSpec, TrainingOptions, TrainingSpec
from influencerai.training_plan.buckets import Bucket, BucketPlan, Crop, resize_and_crop
from influencerai.training_plan.learning import Amounts, learning_warnings

MUCH_CUT = 1 / 3
"""Share of an image that cropping may take before it is warned of."""
_LISTED = 3


@dataclass(frozen=True)
class SampleRef:
    """One showing of an image within an epoch: its index in the spec, and which of its repeats."""

    sample: int
    repeat: int


Batch = tuple[SampleRef, ...]


@dataclass(frozen=True)
class PlannedStep:
    """One optimizer step: the batches whose gradients it accumulates, each of one bucket."""

    epoch: int
    batches: tuple[Batch, ...]

    @property
    def images(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """The batches, cut into pieces of at most `size` images."""
        for batch in self.batches:
            for start in range(0, len(batch), size):
                yield batch[start : start + size]


@dataclass(frozen=True, kw_only=True)
class SizeUse:
    """A size that images are trained in, how many, and how much of them cropping leaves, from 0 to 1."""

    width: int
    height: int
    images: int
    least_kept: float
    mean_kept: float


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The part of a spec that a plan needs: enough to count steps without a base model or device."""

    config: LoraConfig
    options: TrainingOptions
    samples: Sequence[SampleSpec]
    side_multiple: int = 8

    @classmethod
    def of(cls, spec: TrainingSpec) -> Outline:
        return cls(
            config=spec.config,
            options=spec.options,
            samples=spec.samples,
            side_multiple=spec.model.side_multiple,
        )


class TrainingPlan:
    """Which samples each step of a training sees, and after which epochs something happens."""

    def __init__(self, spec: TrainingSpec | Outline) -> None:
        """Raise ValidationError where the bucket options contradict the resolution."""
        self._outline = spec if isinstance(spec, Outline) else Outline.of(spec)
        config, options = self._outline.config, self._outline.options
        self.buckets = BucketPlan(
            resolution=config.resolution, options=options, side_multiple=self._outline.side_multiple
        )
        self.epochs = config.epochs
        self.validation: tuple[int, ...] = self._held_out()
        """Indices of the samples that are held out for the validation loss."""
        held_out = set(self.validation)
        self.training: tuple[int, ...] = tuple(i for i in range(len(self._outline.samples)) if i not in held_out)
        """Indices of the samples that are trained on."""
        self._buckets = [self.buckets.assign(sample.width, sample.height) for sample in self._outline.samples]
        self._recent: dict[int, tuple[Batch, ...]] = {}

    def bucket(self, sample: int) -> Bucket:
        """The size that a sample is trained in."""
        return self._buckets[sample]

    def crop(self, sample: int) -> Crop:
        """The resize and crop that bring a sample to its bucket's size."""
        spec = self._outline.samples[sample]
        return resize_and_crop(spec.width, spec.height, self.bucket(sample))

    @cached_property
    def sizes(self) -> tuple[SizeUse, ...]:
        """The sizes of the images that are trained on, widest first."""
        found = []
        for bucket, members in sorted(self._members.items(), reverse=True):
            kept = [self.crop(index).kept for index in members]
            found.append(
                SizeUse(
                    width=bucket.width,
                    height=bucket.height,
                    images=len(members),
                    least_kept=min(kept),
                    mean_kept=sum(kept) / len(kept),
                )
            )
        return tuple(found)

    @cached_property
    def cropped(self) -> dict[str, float]:
        """The images that lose MUCH_CUT or more, by path, with the share that is kept; the smallest first."""
        kept = {self._outline.samples[index].path: self.crop(index).kept for index in self.training}
        cut = sorted((share, path) for path, share in kept.items() if share <= 1 - MUCH_CUT)
        return {path: share for share, path in cut}

    def repeats(self, sample: int) -> int:
        """The number of times that a sample is seen in one epoch."""
        return self._outline.samples[sample].repeats * self._outline.options.repeats

    @cached_property
    def images_per_epoch(self) -> int:
        return sum(self.repeats(index) for index in self.training)

    @property
    def total_images(self) -> int:
        return self.images_per_epoch * self.epochs

    @cached_property
    def batches_per_epoch(self) -> int:
        sizes = [sum(self.repeats(index) for index in members) for members in self._members.values()]
        return sum(-(-size // self._outline.config.batch_size) for size in sizes)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last of an epoch may accumulate fewer batches than the others."""
        return -(-self.batches_per_epoch // self._outline.options.gradient_accumulation)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def warmup_steps(self) -> int:
        options = self._outline.options
        if options.warmup_steps is not None:
            return min(options.warmup_steps, self.total_steps)
        return round(options.warmup_ratio * self.total_steps)

    @property
    def save_epochs(self) -> tuple[int, ...]:
        """Epochs that leave a file of their own; the last one leaves the final file instead."""
        every = self._outline.options.save_every_n_epochs or max(1, self.epochs // 4)
        return tuple(range(every, self.epochs, every))

    @property
    def sample_epochs(self) -> tuple[int, ...]:
        """Epochs after which the sample prompts are drawn, the last one among them."""
        options = self._outline.options
        return self._every(options.sample_every_n_epochs) if options.sample_prompts else ()

    @property
    def validation_epochs(self) -> tuple[int, ...]:
        """Epochs after which the validation loss is measured, the last one among them."""
        return self._every(self._outline.options.validation_every_n_epochs) if self.validation else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        found = list(self.buckets.warnings)
        if self._outline.options.validation_split and not self.validation:
            found.append("validationSplit has no effect: there is only one image.")
        if self.cropped:
            shown = [f"{path} ({share:.0%} is kept)" for path, share in list(self.cropped.items())[:_LISTED]]
            more = f" and {len(self.cropped) - _LISTED} more" if len(self.cropped) > _LISTED else ""
            images = "1 image loses" if len(self.cropped) == 1 else f"{len(self.cropped)} images lose"
            found.append(
                f"{images} a third or more to cropping: {', '.join(shown)}{more}. Crop by hand, or allow more sizes "
                "(aspectRatioBuckets, bucketMin, bucketMax)."
            )
        amounts = Amounts(
            images=len(self._outline.samples),
            held_out=len(self.validation),
            images_per_epoch=self.images_per_epoch,
            batches_per_epoch=self.batches_per_epoch,
            epochs=self.epochs,
            total_steps=self.total_steps,
        )
        return (*found, *learning_warnings(self._outline.config, self._outline.options, amounts))

    def epoch_batches(self, epoch: int) -> tuple[Batch, ...]:
        """The batches of an epoch in training order, each of one bucket, a pure function of (seed, epoch)."""
        size = self._outline.config.batch_size
        batches: dict[tuple[int, int, int], Batch] = {}
        for bucket, members in self._members.items():
            refs = [SampleRef(index, repeat) for index in members for repeat in range(self.repeats(index))]
            refs.sort(key=lambda ref: self._hash("sample", epoch, ref.sample, ref.repeat))
            for start in range(0, len(refs), size):
                batches[bucket.width, bucket.height, start] = tuple(refs[start : start + size])
        return tuple(batches[key] for key in sorted(batches, key=lambda key: self._hash("batch", epoch, *key)))

    def step(self, step: int) -> PlannedStep:
        """Optimizer step number `step`."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is outside 0..{self.total_steps - 1}")
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch + 1 not in self._recent:
            self._recent = {epoch + 1: self.epoch_batches(epoch + 1)}
        count = self._outline.options.gradient_accumulation
        return PlannedStep(epoch + 1, self._recent[epoch + 1][within * count : (within + 1) * count])

    @cached_property
    def _members(self) -> dict[Bucket, list[int]]:
        """The training samples of each bucket that has any."""
        found: dict[Bucket, list[int]] = {}
        for index in self.training:
            found.setdefault(self.bucket(index), []).append(index)
        return dict(sorted(found.items()))

    def _held_out(self) -> tuple[int, ...]:
        """A share of the different images, at least one and never all; copies of one image stay together."""
        samples, share = self._outline.samples, self._outline.options.validation_split
        hashes = sorted({sample.sha256 for sample in samples}, key=lambda sha256: self._hash("validation", sha256))
        count = min(len(hashes) - 1, max(1, round(share * len(hashes)))) if share else 0
        chosen = set(hashes[:count])
        return tuple(index for index, sample in enumerate(samples) if sample.sha256 in chosen)

    def _every(self, count: int) -> tuple[int, ...]:
        return tuple(sorted({*range(count, self.epochs + 1, count), self.epochs}))

    def _hash(self, *key: str | int) -> bytes:
        text = "\x1f".join(str(part) for part in (self._outline.options.seed, *key))
        return hashlib.blake2b(text.encode(), digest_size=16).digest()
