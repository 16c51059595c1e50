"""Batches: every sample as often as it should be, never two sizes in a batch, in an order that the seed decides."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influencerai.domain import ExecutionPlan, LoraConfig, ModelSpec, SampleSpec, TrainingOptions, TrainingSpec
from influencerai.errors import ValidationError
from influencerai.training_plan import Outline, PlannedStep, SampleRef, TrainingPlan, estimate


def sample(index: int, *, width: int = 512, height: int = 512, repeats: int = 1, content: str = "") -> SampleSpec:
    sha256 = hashlib.sha256((content or str(index)).encode()).hexdigest()
    return SampleSpec(path=f"{index:03}.png", sha256=sha256, width=width, height=height, caption="", repeats=repeats)


def make_plan(samples: list[SampleSpec], *, epochs: int = 4, batch_size: int = 2, **options: Any) -> TrainingPlan:
    config = LoraConfig(name="me", model_name="sd15", epochs=epochs, batch_size=batch_size, resolution=512)
    return TrainingPlan(Outline(config=config, options=TrainingOptions(**options), samples=samples))


def make_spec(*, family: str = "sd15") -> TrainingSpec:
    config = LoraConfig(name="me", model_name="sd15", resolution=500, meta={"bucketStep": 24, "seed": 7})
    return TrainingSpec(
        config=config,
        options=config.options,
        model=ModelSpec(
            name="sd15",
            family=family,
            fingerprint="0" * 64,
            prediction_type="epsilon",
            zero_terminal_snr=False,
            side_multiple=16,
        ),
        samples=tuple(sample(index, width=400 + 30 * index) for index in range(5)),
        plan=ExecutionPlan(
            device="cpu", device_name="cpu", build="torch", threads=1, world_size=1, micro_batch=1, precision="fp32"
        ),
        output_name="me",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@st.composite
def plans(draw: st.DrawFn) -> TrainingPlan:
    count = draw(st.integers(1, 12))
    shapes = st.sampled_from([(512, 512), (400, 900), (900, 400), (512, 640)])
    samples = []
    for index in range(count):
        width, height = draw(shapes)
        samples.append(sample(index, width=width, height=height, repeats=draw(st.integers(1, 3))))
    return make_plan(
        samples,
        epochs=draw(st.integers(1, 5)),
        batch_size=draw(st.integers(1, 5)),
        repeats=draw(st.integers(1, 3)),
        gradient_accumulation=draw(st.integers(1, 4)),
        validation_split=draw(st.sampled_from([0.0, 0.1, 0.5, 0.9])),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@given(plan=plans())
@settings(max_examples=60, deadline=None)
def test_an_epoch_shows_every_training_sample_exactly_as_often_as_it_repeats(plan: TrainingPlan) -> None:
    for epoch in range(1, plan.epochs + 1):
        refs = [ref for batch in plan.epoch_batches(epoch) for ref in batch]
        expected = {SampleRef(index, repeat) for index in plan.training for repeat in range(plan.repeats(index))}
        assert Counter(refs) == Counter(expected)
        assert len(refs) == plan.images_per_epoch


@given(plan=plans())
@settings(max_examples=60, deadline=None)
def test_a_batch_has_one_size_and_at_most_batch_size_images(plan: TrainingPlan) -> None:
    batches = plan.epoch_batches(1)
    assert len(batches) == plan.batches_per_epoch
    for batch in batches:
        assert len({plan.bucket(ref.sample) for ref in batch}) == 1
        box = plan.crop(batch[0].sample).box
        assert (box[2] - box[0], box[3] - box[1]) == (
            plan.bucket(batch[0].sample).width,
            plan.bucket(batch[0].sample).height,
        )


@given(plan=plans())
@settings(max_examples=60, deadline=None)
def test_the_steps_are_the_epochs_batches_one_after_the_other(plan: TrainingPlan) -> None:
    steps = [plan.step(index) for index in range(plan.total_steps)]
    assert len(steps) == plan.steps_per_epoch * plan.epochs
    for epoch in range(1, plan.epochs + 1):
        own = [step for step in steps if step.epoch == epoch]
        assert len(own) == plan.steps_per_epoch
        assert tuple(batch for step in own for batch in step.batches) == plan.epoch_batches(epoch)
        assert len({len(step.batches) for step in own[:-1]}) <= 1
        assert 0 < len(own[-1].batches) <= len(own[0].batches)
    assert sum(step.images for step in steps) == plan.total_images
    assert [plan.step(index) for index in reversed(range(plan.total_steps))] == steps[::-1]


@given(plan=plans())
@settings(max_examples=60, deadline=None)
def test_validation_and_training_share_out_the_samples(plan: TrainingPlan) -> None:
    assert sorted((*plan.validation, *plan.training)) == list(range(len(plan.validation) + len(plan.training)))
    assert plan.training


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    samples = [sample(index) for index in range(8)]
    orders = {
        (seed, epoch): make_plan(samples, seed=seed).epoch_batches(epoch) for seed in (1, 2) for epoch in (1, 2, 3, 4)
    }
    assert len(set(orders.values())) == 8
    assert make_plan(samples, seed=2).epoch_batches(3) == orders[2, 3]
    assert make_plan(samples, seed=2, epochs=40).epoch_batches(3) == orders[2, 3]


def test_the_order_stays_that_of_earlier_releases() -> None:
    """A run begun by an earlier release can only be continued while this holds."""
    batches = make_plan([sample(index) for index in range(6)], seed=42).epoch_batches(1)
    assert [[ref.sample for ref in batch] for batch in batches] == [[1, 0], [4, 3], [5, 2]]


def test_repeats_of_folder_and_option_are_multiplied() -> None:
    plan = make_plan([sample(0, repeats=3), sample(1)], repeats=2, epochs=5)
    assert (plan.repeats(0), plan.repeats(1)) == (6, 2)
    assert (plan.images_per_epoch, plan.total_images) == (8, 40)


def test_the_contracts_example_counts() -> None:
    plan = make_plan([sample(index) for index in range(25)], epochs=20)
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (13, 260, 13)
    assert plan.save_epochs == (5, 10, 15)


@pytest.mark.parametrize(
    ("epochs", "every", "saved"),
    [
        (1, None, ()),
        (3, None, (1, 2)),
        (4, None, (1, 2, 3)),
        (10, None, (2, 4, 6, 8)),
        (9, None, (2, 4, 6, 8)),
        (10, 3, (3, 6, 9)),
        (10, 5, (5,)),
        (10, 10, ()),
        (10, 99, ()),
    ],
)
def test_epochs_that_leave_a_file(epochs: int, every: int | None, saved: tuple[int, ...]) -> None:
    assert make_plan([sample(0)], epochs=epochs, save_every_n_epochs=every).save_epochs == saved


def test_samples_and_validation_end_with_the_last_epoch() -> None:
    plan = make_plan(
        [sample(0), sample(1)],
        epochs=7,
        sample_prompts=("ohwx",),
        sample_every_n_epochs=3,
        validation_split=0.5,
        validation_every_n_epochs=2,
    )
    assert plan.sample_epochs == (3, 6, 7)
    assert plan.validation_epochs == (2, 4, 6, 7)
    without = make_plan([sample(0), sample(1)], epochs=7, sample_every_n_epochs=3)
    assert (without.sample_epochs, without.validation_epochs) == ((), ())


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 10),
        ({"warmup_ratio": 0.0}, 0),
        ({"warmup_steps": 7}, 7),
        ({"warmup_steps": 0}, 0),
        ({"warmup_steps": 999}, 200),
    ],
)
def test_warm_up(options: dict[str, Any], steps: int) -> None:
    plan = make_plan([sample(index) for index in range(10)], epochs=20, batch_size=1, **options)
    assert plan.total_steps == 200
    assert plan.warmup_steps == steps


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(20, 0.1, 2), (20, 0.01, 1), (2, 0.99, 1), (3, 0.99, 2), (20, 0.0, 0)]
)
def test_the_share_held_out_is_at_least_one_and_never_all(count: int, share: float, held_out: int) -> None:
    assert len(make_plan([sample(index) for index in range(count)], validation_split=share).validation) == held_out


def test_one_image_cannot_be_held_out_and_that_is_said() -> None:
    plan = make_plan([sample(0)], validation_split=0.5)
    assert plan.validation == ()
    assert plan.warnings[0] == "validationSplit has no effect: there is only one image."


def test_copies_of_an_image_stay_on_one_side() -> None:
    for seed in range(20):
        plan = make_plan(
            [sample(index, content=str(index // 2)) for index in range(12)], validation_split=0.3, seed=seed
        )
        held_out = set(plan.validation)
        assert all((index ^ 1) in held_out for index in held_out)
        assert len(held_out) == 4


def test_which_images_are_held_out_depends_on_their_content_and_not_on_their_place() -> None:
    samples = [sample(index) for index in range(10)]
    forward, backward = make_plan(samples, validation_split=0.3), make_plan(samples[::-1], validation_split=0.3)
    assert {samples[index].path for index in forward.validation} == {
        samples[::-1][index].path for index in backward.validation
    }


def test_micro_batches_cut_each_batch() -> None:
    refs = tuple(SampleRef(index, 0) for index in range(7))
    step = PlannedStep(1, (refs[:5], refs[5:]))
    assert list(step.micro_batches(2)) == [refs[0:2], refs[2:4], refs[4:5], refs[5:7]]
    assert list(step.micro_batches(9)) == [refs[:5], refs[5:]]
    assert step.images == 7


def test_a_step_outside_the_training_is_our_own_mistake() -> None:
    plan = make_plan([sample(0)])
    for step in (-1, plan.total_steps):
        with pytest.raises(IndexError):
            plan.step(step)


def test_a_spec_gives_the_plan_of_its_parts() -> None:
    spec = make_spec()
    plan = TrainingPlan(spec)
    assert plan.buckets.side == 480
    assert plan.warnings[0] == "resolution 500 is no multiple of the bucket step 48: 480 is used."
    outline = Outline(config=spec.config, options=spec.options, samples=spec.samples, side_multiple=16)
    assert [plan.step(step) for step in range(plan.total_steps)] == [
        TrainingPlan(outline).step(step) for step in range(plan.total_steps)
    ]


def test_the_cost_of_a_spec_has_its_counts() -> None:
    spec, plan = make_spec(), TrainingPlan(make_spec())
    cost = estimate(spec)
    assert (cost.images_per_epoch, cost.total_images) == (plan.images_per_epoch, plan.total_images) == (5, 50)
    assert (cost.steps_per_epoch, cost.total_steps) == (plan.steps_per_epoch, plan.total_steps)
    assert cost.memory_gb == pytest.approx(sum(cost.memory_parts_gb.values()), abs=0.05)
    assert "not a measurement" in cost.basis
    tiny = estimate(spec, denoiser_parameters=8_800_000)
    assert tiny.memory_gb is not None
    assert cost.memory_gb is not None
    assert tiny.memory_gb < cost.memory_gb
    assert "scaled" in tiny.basis
    other = estimate(make_spec(family="flux"))
    assert other.memory_gb is None
    assert "no memory figures for the family 'flux'" in other.basis


def test_contradictory_buckets_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValidationError, match=r"meta\.bucketMin"):
        make_plan([sample(0)], bucket_min=1024)


def test_what_cropping_takes_is_said_for_images_that_lose_a_third() -> None:
    sizes = {"tall.png": (256, 563), "near.png": (256, 320), "wide.png": (2048, 128)}
    square = TrainingPlan(outline(sizes, {"aspectRatioBuckets": False}))
    assert square.cropped == pytest.approx({"wide.png": 128 / 2048, "tall.png": 256 / 563}, abs=0.01)
    (size,) = square.sizes
    assert (size.width, size.images) == (256, 3)
    assert (size.least_kept, size.mean_kept) == pytest.approx((0.0625, 0.44), abs=0.01)
    (warning,) = (text for text in square.warnings if "cropping" in text)
    assert "2 images lose a third or more to cropping: wide.png (6% is kept), tall.png (45% is kept)." in warning
    buckets = TrainingPlan(outline(sizes, {}))
    assert list(buckets.cropped) == ["wide.png"]


def outline(sizes: dict[str, tuple[int, int]], meta: dict[str, Any]) -> Outline:
    config = LoraConfig.parse({"name": "x", "modelName": "m", "epochs": 1, "resolution": 256, "meta": meta})
    samples = [
        SampleSpec(path=path, sha256=f"{index:064x}", width=width, height=height, caption="", repeats=1)
        for index, (path, (width, height)) in enumerate(sizes.items())
    ]
    return Outline(config=config, options=config.options, samples=samples)
