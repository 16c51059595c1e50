"""Buckets: the sizes that images are trained in, and how an image comes to have one of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from influencerai.domain import TrainingOptions
from influencerai.errors import ValidationError

SMALL_RESOLUTION = 256
"""Below it the default bucket step is 32 pixels, from it on 64."""


@dataclass(frozen=True, order=True)
class Bucket:
    """A size that images are trained in, in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Crop:
    """The resize and crop that bring an image to its bucket's size.

    It is resized to `resized` (width, height), which covers the bucket, and cut to `box` (left, top, right,
    bottom), which lies in the middle.
    """

    resized: tuple[int, int]
    box: tuple[int, int, int, int]

    @property
    def kept(self) -> float:
        """Share of the image that is trained on, up to 1."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top) / (self.resized[0] * self.resized[1])


class BucketPlan:
    """The sizes that a training uses.

    Every side is a multiple of lcm(bucketStep, side_multiple) between bucketMin and bucketMax, and no area
    exceeds the square's. For each side the other is as long as that allows, as in kohya's trainer. A resolution
    that is no multiple is rounded down.
    """

    def __init__(self, *, resolution: int, options: TrainingOptions, side_multiple: int = 8) -> None:
        """Raise ValidationError where no size meets the options."""
        step = math.lcm(_bucket_step(resolution, options), side_multiple)
        self.side = resolution // step * step
        """Of the square, in pixels."""
        self.warnings: tuple[str, ...] = ()
        if self.side == 0:
            raise _bad_option("bucketStep", f"{step} exceeds resolution {resolution}")
        if self.side != resolution:
            self.warnings = (f"resolution {resolution} is no multiple of the bucket step {step}: {self.side} is used.",)
        square = Bucket(self.side, self.side)
        self.buckets: tuple[Bucket, ...] = (square,)
        if options.aspect_ratio_buckets:
            self.buckets = tuple(sorted({square, *self._rectangles(options, step=step)}))

    def assign(self, width: int, height: int) -> Bucket:
        """The bucket nearest in aspect ratio, on a logarithmic scale.

        Of two equally near the larger is taken, then the narrower. Distances are compared as exact fractions, so
        that ties fall the same way on every machine.
        """

        def distance(bucket: Bucket) -> tuple[Fraction, int, int]:
            one, other = width * bucket.height, height * bucket.width
            return Fraction(max(one, other), min(one, other)), -bucket.width * bucket.height, bucket.width

        return min(self.buckets, key=distance)

    def _rectangles(self, options: TrainingOptions, *, step: int) -> Iterator[Bucket]:
        shortest = options.bucket_min if options.bucket_min is not None else self.side // 2
        longest = options.bucket_max if options.bucket_max is not None else self.side * 2
        if shortest > self.side:
            raise _bad_option("bucketMin", f"{shortest} exceeds the resolution in use, {self.side}")
        if longest < self.side:
            raise _bad_option("bucketMax", f"{longest} is less than the resolution in use, {self.side}")
        first, last = -(-shortest // step) * step, longest // step * step
        for side in range(first, last + 1, step):
            other = min(last, self.side**2 // side // step * step)
            if other >= first:
                yield Bucket(side, other)
                yield Bucket(other, side)


def resize_and_crop(width: int, height: int, bucket: Bucket) -> Crop:
    """The smallest size of the same aspect ratio that covers the bucket, and its middle."""
    if width * bucket.height >= height * bucket.width:
        resized = max(bucket.width, _divide(width * bucket.height, height)), bucket.height
    else:
        resized = bucket.width, max(bucket.height, _divide(height * bucket.width, width))
    left, top = (resized[0] - bucket.width) // 2, (resized[1] - bucket.height) // 2
    return Crop(resized, (left, top, left + bucket.width, top + bucket.height))


def _bucket_step(resolution: int, options: TrainingOptions) -> int:
    return options.bucket_step or (32 if resolution < SMALL_RESOLUTION else 64)


def _bad_option(name: str, reason: str) -> ValidationError:
    return ValidationError(field_errors={f"meta.{name}": [f"{name} {reason}"]})


def _divide(dividend: int, divisor: int) -> int:
    """The quotient, rounded to the nearest integer."""
    return (2 * dividend + divisor) // (2 * divisor)
