"""Draws depend on what they are for, and on nothing else."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from influencerai.domain import TrainingOptions
from influencerai.models.draws import SampleDraws, normal, shuffled, uniform
from influencerai.training_plan import SampleRef


def test_uniform_draws_are_spread_evenly() -> None:
    values = [uniform(42, "timestep", step, 0, 0) for step in range(4000)]
    assert all(0 <= value < 1 for value in values)
    counts = [sum(low <= value * 10 < low + 1 for value in values) for low in range(10)]
    assert min(counts) > 320
    assert max(counts) < 480


def test_noise_is_standard_normal_and_ignores_the_global_generator() -> None:
    torch.manual_seed(1)
    first = normal((4, 64, 64), 42, "noise", 3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = normal((4, 64, 64), 42, "noise", 3)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert abs(float(first.mean())) < 0.03
    assert abs(float(first.std()) - 1) < 0.03


def test_every_part_of_the_key_matters() -> None:
    base = SampleDraws(TrainingOptions(seed=1), 5, SampleRef(2, 0))
    others = [
        SampleDraws(TrainingOptions(seed=2), 5, SampleRef(2, 0)),
        SampleDraws(TrainingOptions(seed=1), 6, SampleRef(2, 0)),
        SampleDraws(TrainingOptions(seed=1), 5, SampleRef(3, 0)),
        SampleDraws(TrainingOptions(seed=1), 5, SampleRef(2, 1)),
    ]
    for other in others:
        assert other.timestep_draw != base.timestep_draw
        assert not torch.equal(other.noise((4, 2, 2)), base.noise((4, 2, 2)))
        assert not torch.equal(other.posterior((4, 2, 2)), base.posterior((4, 2, 2)))
    assert not torch.equal(base.noise((4, 2, 2)), base.posterior((4, 2, 2)))


def test_noise_offset_moves_whole_channels() -> None:
    ref = SampleRef(0, 0)
    plain = SampleDraws(TrainingOptions(), 0, ref).noise((4, 8, 8))
    offset = SampleDraws(TrainingOptions(noise_offset=0.1), 0, ref).noise((4, 8, 8)) - plain
    assert float(offset.std(dim=(1, 2)).max()) < 1e-6
    assert float(offset.abs().max()) > 0.01


@given(
    tags=st.lists(st.text("abcdefg ", min_size=1).filter(str.strip), min_size=1, max_size=8),
    keep=st.integers(0, 8),
)
@settings(max_examples=50, deadline=None)
def test_shuffling_keeps_the_leading_tags_and_loses_none(tags: list[str], keep: int) -> None:
    options = TrainingOptions(shuffle_tags=True, keep_tokens=keep)
    caption = ", ".join(tags)
    result = SampleDraws(options, 7, SampleRef(0, 0)).caption(caption).split(", ")
    parts = [tag.strip() for tag in caption.split(",")]
    assert sorted(result) == sorted(parts)
    assert result[:keep] == parts[:keep]


def test_captions_are_dropped_at_the_asked_rate() -> None:
    options = TrainingOptions(caption_dropout=0.3)
    dropped = sum(SampleDraws(options, step, SampleRef(0, 0)).caption("a") == "" for step in range(2000))
    assert 520 < dropped < 680


def test_half_of_the_samples_flip_only_when_asked() -> None:
    flips = [SampleDraws(TrainingOptions(flip=True), step, SampleRef(0, 0)).flip for step in range(1000)]
    assert 430 < sum(flips) < 570
    assert not any(SampleDraws(TrainingOptions(), step, SampleRef(0, 0)).flip for step in range(100))


def test_shuffled_is_a_permutation_that_the_key_decides() -> None:
    items = [str(number) for number in range(20)]
    assert shuffled(items, 1, "a") == shuffled(items, 1, "a")
    assert shuffled(items, 1, "a") != shuffled(items, 1, "b")
    assert sorted(shuffled(items, 1, "a")) == sorted(items)
