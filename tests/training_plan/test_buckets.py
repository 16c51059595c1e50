"""Buckets: sizes within the options' bounds, the nearest for each image, and a crop that covers it."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from influencerai.domain import TrainingOptions
from influencerai.errors import ValidationError
from influencerai.training_plan import Bucket, BucketPlan, resize_and_crop

sides = st.integers(min_value=1, max_value=8192)


def sizes(plan: BucketPlan) -> set[tuple[int, int]]:
    return {(bucket.width, bucket.height) for bucket in plan.buckets}


def test_sd15s_usual_buckets() -> None:
    plan = BucketPlan(resolution=512, options=TrainingOptions())
    half = {(256, 1024), (320, 768), (384, 640), (448, 576), (512, 512), (576, 448), (640, 384), (704, 320)}
    assert half <= sizes(plan)
    assert sizes(plan) == {(height, width) for width, height in sizes(plan)}
    assert plan.warnings == ()


def test_sdxls_buckets_hold_the_sizes_that_it_was_trained_in() -> None:
    trained = {(1024, 1024), (1152, 896), (1216, 832), (1344, 768), (1536, 640), (896, 1152), (832, 1216)}
    assert trained <= sizes(BucketPlan(resolution=1024, options=TrainingOptions()))


def test_the_embedded_models_buckets() -> None:
    plan = BucketPlan(resolution=128, options=TrainingOptions())
    wide = {(160, 96), (192, 64), (224, 64), (256, 64)}
    assert sizes(plan) == {(128, 128)} | wide | {(height, width) for width, height in wide}


def test_without_buckets_there_is_only_the_square() -> None:
    plan = BucketPlan(resolution=512, options=TrainingOptions(aspect_ratio_buckets=False))
    assert plan.buckets == (Bucket(512, 512),)
    assert plan.assign(100, 4000) == Bucket(512, 512)


@pytest.mark.parametrize(
    ("resolution", "options", "side_multiple", "side"),
    [(500, {}, 8, 448), (200, {}, 8, 192), (512, {"bucket_step": 24}, 16, 480), (512, {}, 128, 512), (255, {}, 8, 224)],
)
def test_a_resolution_that_is_no_multiple_is_rounded_down_with_a_warning(
    resolution: int, options: dict[str, int], side_multiple: int, side: int
) -> None:
    plan = BucketPlan(resolution=resolution, options=TrainingOptions.parse(options), side_multiple=side_multiple)
    assert plan.side == side
    assert bool(plan.warnings) is (side != resolution)
    if plan.warnings:
        assert f"resolution {resolution}" in plan.warnings[0]
        assert f"{side} is used" in plan.warnings[0]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"bucket_min": 576}, "meta.bucketMin"),
        ({"bucket_max": 448}, "meta.bucketMax"),
        ({"bucket_step": 512, "bucket_min": 1024}, "meta.bucketMin"),
    ],
)
def test_bounds_that_leave_out_the_square_are_refused(options: dict[str, int], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        BucketPlan(resolution=512, options=TrainingOptions.parse(options))
    assert list(raised.value.field_errors) == [field]


def test_a_step_beyond_the_resolution_is_refused() -> None:
    with pytest.raises(ValidationError, match="bucketStep 512 exceeds resolution 256"):
        BucketPlan(resolution=256, options=TrainingOptions(bucket_step=512))


@given(
    resolution=st.integers(128, 2048),
    shortest=st.none() | st.integers(64, 2048),
    longest=st.none() | st.integers(64, 4096),
    step=st.none() | st.integers(8, 512),
    side_multiple=st.sampled_from([1, 4, 8, 16, 32, 64]),
)
def test_every_bucket_keeps_the_bounds(
    resolution: int, shortest: int | None, longest: int | None, step: int | None, side_multiple: int
) -> None:
    assume(shortest is None or longest is None or shortest <= longest)
    options = TrainingOptions(bucket_min=shortest, bucket_max=longest, bucket_step=step)
    try:
        plan = BucketPlan(resolution=resolution, options=options, side_multiple=side_multiple)
    except ValidationError:
        assume(False)
    multiple = math.lcm(step or (32 if resolution < 256 else 64), side_multiple)
    assert Bucket(plan.side, plan.side) in plan.buckets
    assert len(set(plan.buckets)) == len(plan.buckets)
    for bucket in plan.buckets:
        assert bucket.width % multiple == bucket.height % multiple == 0
        assert bucket.width * bucket.height <= plan.side**2 <= resolution**2
        assert min(bucket.width, bucket.height) >= (shortest or plan.side / 2)
        assert max(bucket.width, bucket.height) <= (longest or plan.side * 2)


@given(width=sides, height=sides, resolution=st.sampled_from([128, 512, 1024]))
def test_no_other_bucket_is_nearer_in_aspect_ratio(width: int, height: int, resolution: int) -> None:
    plan = BucketPlan(resolution=resolution, options=TrainingOptions())

    def distance(bucket: Bucket) -> float:
        return abs(math.log(width / height) - math.log(bucket.width / bucket.height))

    chosen = plan.assign(width, height)
    assert distance(chosen) <= min(map(distance, plan.buckets)) + 1e-12
    mirrored = plan.assign(height, width)
    assert {chosen.width, chosen.height} == {mirrored.width, mirrored.height}


def test_equally_near_buckets_are_chosen_between_by_size_then_width() -> None:
    plan = BucketPlan(resolution=512, options=TrainingOptions())
    plan.buckets = (Bucket(512, 256), Bucket(256, 512), Bucket(128, 256))
    assert plan.assign(300, 300) == Bucket(256, 512)
    plan.buckets = plan.buckets[::-1]
    assert plan.assign(300, 300) == Bucket(256, 512)


@given(width=sides, height=sides, bucket=st.builds(Bucket, st.integers(8, 2048), st.integers(8, 2048)))
def test_a_crop_covers_its_bucket_from_the_middle(width: int, height: int, bucket: Bucket) -> None:
    crop = resize_and_crop(width, height, bucket)
    left, top, right, bottom = crop.box
    assert (right - left, bottom - top) == (bucket.width, bucket.height)
    assert 0 <= left <= right <= crop.resized[0]
    assert 0 <= top <= bottom <= crop.resized[1]
    assert bucket.width in crop.resized or bucket.height in crop.resized
    assert abs(left - (crop.resized[0] - right)) <= 1
    assert abs(top - (crop.resized[1] - bottom)) <= 1
    scale = max(bucket.width / width, bucket.height / height)
    assert abs(crop.resized[0] - scale * width) <= 0.5 + 1e-6
    assert abs(crop.resized[1] - scale * height) <= 0.5 + 1e-6


def test_an_image_of_the_buckets_size_is_left_as_it_is() -> None:
    crop = resize_and_crop(640, 384, Bucket(640, 384))
    assert (crop.resized, crop.box) == ((640, 384), (0, 0, 640, 384))
