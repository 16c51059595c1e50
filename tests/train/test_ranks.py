"""Ranks: real processes over gloo train what one process trains, hold the same bits, and end together."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from influencerai.domain import TrainingSpec
from influencerai.errors import DatasetError, OutOfMemoryError, TrainingError
from influencerai.train.causes import is_infrastructure
from influencerai.train.ranks import Ranks, joined_ranks
from influencerai.training_plan.batches import PlannedStep, SampleRef
from tests.small_models import small_sd15, small_sdxl
from tests.train.rank_processes import run_ranks, values
from tests.train.rank_work import Trained, train_steps
from tests.training_runs import RunPlace, make_config, make_settings, make_spec, write_dataset

STEPS = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> RunPlace:
    root = tmp_path_factory.mktemp("ranks")
    return RunPlace(root, dataset=write_dataset(root / "dataset"))


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("models") / "sd15")


def spec_of(model: Path, place: RunPlace, *, precision: str | None = None, **changes: Any) -> TrainingSpec:
    spec = make_spec(make_config(model, epochs=20, **changes), place.dataset, settings=make_settings(place.root))
    return spec.model_copy(update={"plan": spec.plan.model_copy(update={"precision": precision or "fp32"})})


def steps_of(*images: int) -> PlannedStep:
    """A step of batches of that many images."""
    refs = iter(range(sum(images)))
    return PlannedStep(1, tuple(tuple(SampleRef(next(refs), 0) for _ in range(count)) for count in images))


def flat(step: PlannedStep) -> list[SampleRef]:
    return [ref for batch in step.batches for ref in batch]


def digest(tensors: dict[str, Tensor]) -> str:
    data = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        data.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return data.hexdigest()


def whole_state(trained: Trained) -> list[Any]:
    """Everything that a state file of that moment would hold, tensors as their hash."""
    state = trained.state
    groups = [digest(tensors) for tensors in (state.adapter, state.export, state.optimizer)]
    return [*groups, state.scalars, repr((trained.losses, trained.grad_norms, trained.validation))]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 6))
def test_shares_are_equal_to_within_one_image_and_make_up_the_step(images: list[int], count: int) -> None:
    step = steps_of(*images)
    shares = [Ranks(number, count).share(step) for number in range(count)]
    assert [ref for share in shares for ref in flat(share)] == flat(step)
    sizes = [share.images for share in shares]
    assert max(sizes) - min(sizes) <= 1
    buckets = {ref: index for index, batch in enumerate(step.batches) for ref in batch}
    assert all(len({buckets[ref] for ref in batch}) == 1 for share in shares for batch in share.batches)
    assert all(batch for share in shares for batch in share.batches)


def test_a_rank_alone_does_nothing() -> None:
    alone = Ranks()
    step, loss = steps_of(2, 1), torch.tensor(3.0)
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    parameters[0].grad = gradient = torch.full((2,), 5.0)
    assert alone.share(step) is step
    alone.sum_gradients(parameters, loss)
    alone.sum_(loss)
    assert parameters[0].grad is gradient
    assert parameters[1].grad is None
    assert (gradient.tolist(), loss.item()) == ([5.0, 5.0], 3.0)
    assert alone.is_first
    assert (alone.broadcast("x"), alone.gather(1), alone.agree(lambda: True), alone.agree(lambda: False)) == (
        "x",
        [1],
        True,
        False,
    )
    with alone.one_fate(), alone.first_ahead():
        alone.wait()
    with pytest.raises(DatasetError), alone.one_fate():
        raise DatasetError("no")
    assert not torch.distributed.is_initialized()


def test_without_an_environment_there_are_no_ranks() -> None:
    with joined_ranks("cpu") as ranks:
        assert (ranks.number, ranks.count) == (0, 1)


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(TrainingError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"), joined_ranks("cpu"):
        pass


def numbers(ranks: Ranks) -> list[int]:
    return [ranks.number, ranks.count, *ranks.gather(ranks.number)]


@pytest.mark.slow
@pytest.mark.parametrize("has_environment", [True, False])
def test_a_group_that_is_there_already_is_used(has_environment: bool, tmp_path: Path) -> None:
    """As one that Ray Train has made, which sets the environment too."""
    found = values(run_ranks(numbers, has_environment=has_environment, meeting=tmp_path / "meeting"))
    assert found == [[0, 2, 0, 1], [1, 2, 0, 1]]


def exchange(ranks: Ranks, path: Path) -> Any:
    """Every call once; the numbers are chosen so that the order of a sum shows in its last bits."""
    parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.full((2, 3), 0.1 * 3**ranks.number)
    if ranks.number == 1:
        parameters[1].grad = torch.arange(4.0)
    loss = torch.tensor(1.0)
    ranks.sum_gradients(parameters, loss)
    many = torch.rand(100_001, generator=torch.Generator().manual_seed(ranks.number))
    ranks.sum_(many)
    with ranks.first_ahead():
        if ranks.is_first:
            time.sleep(0.3)
            path.write_text("written")
        found = path.read_text()
    received = ranks.from_first(lambda: {"a": 1})
    return {
        "gradients": [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters],
        "loss": loss.item(),
        "many": digest({"many": many}),
        "found": found,
        "received": received,
        "agreed": [ranks.agree(lambda: ranks.is_first), ranks.agree(lambda: not ranks.is_first)],
        "gathered": ranks.gather(ranks.number),
    }


@pytest.mark.slow
def test_three_ranks_exchange_words_and_sums(tmp_path: Path) -> None:
    first, *others = values(run_ranks(exchange, tmp_path / "file", count=3))
    assert others == [first, first]
    [[row, _], second, third] = first["gradients"]
    assert row == pytest.approx([0.1 + 0.3 + 0.9] * 3)
    assert (second, third) == ([0.0, 1.0, 2.0, 3.0], None)
    assert (first["loss"], first["received"], first["agreed"]) == (3.0, {"a": 1}, [True, False])
    assert (first["gathered"], first["found"]) == ([0, 1, 2], "written")


def fail_in(ranks: Ranks, failing: list[int]) -> str:
    """Errors of different kinds within a step; what each rank makes of it."""
    try:
        with ranks.one_fate():
            ranks.wait()
            with ranks.one_fate():
                if ranks.number in failing:
                    raise_with_cause(ranks.number)
                ranks.sum_(torch.zeros(3))
    except Exception as error:
        return f"{type(error).__name__} {is_infrastructure(error)}: {error}"
    return "nothing"


class LocalError(Exception):
    def __init__(self, number: int, *, what: str) -> None:
        super().__init__(f"{what} {number}")


def raise_with_cause(number: int) -> None:
    if number == 0:
        raise LocalError(number, what="cannot be pickled")
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        raise OutOfMemoryError(f"full {number}", remedy="Make room.") from error


@pytest.mark.parametrize("failing", [[0], [1], [1, 2]])
def test_an_error_in_one_rank_is_raised_in_all(failing: list[int]) -> None:
    found = values(run_ranks(fail_in, failing, count=3))
    if failing == [0]:
        others = "RuntimeError False: LocalError: cannot be pickled 0"
        assert found == ["LocalError False: cannot be pickled 0", others, others]
    else:
        own = {number: f"OutOfMemoryError True: full {number} Make room." for number in failing}
        assert found == [own.get(number, own[1]) for number in range(3)]


def leave(ranks: Ranks) -> str:
    if ranks.number == 1:
        return "left"
    with pytest.raises(ConnectionError, match="Another process of this training is gone"), ranks.one_fate():
        ranks.wait()
    return "noticed"


def test_a_rank_that_leaves_is_noticed() -> None:
    assert values(run_ranks(leave)) == ["noticed", "left"]


IN_CI = ("one image for two ranks", "everything")
RUNS: dict[str, dict[str, Any]] = {
    "an odd batch": {"batchSize": 3, "meta": {"aspectRatioBuckets": False}},
    "one image for two ranks": {"batchSize": 1, "meta": {"validationSplit": 0.4}},
    "everything": {
        "batchSize": 2,
        "meta": {
            "gradientAccumulation": 3,
            "ema": True,
            "captionDropout": 0.3,
            "shuffleTags": True,
            "flip": True,
            "noiseOffset": 0.05,
            "validationSplit": 0.4,
            "trainTextEncoder": True,
            "targetModules": "all",
        },
    },
    "schedule-free": {"batchSize": 4, "meta": {"optimizer": "ScheduleFreeAdamW", "validationSplit": 0.2}},
    "Prodigy": {"batchSize": 4, "learningRate": 1.0, "meta": {"optimizer": "Prodigy"}},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.campaign) for name in RUNS]
)
def test_two_ranks_train_what_one_trains(name: str, sd15: Path, place: RunPlace) -> None:
    check_against_one(spec_of(sd15, place, **RUNS[name]), place)


@pytest.mark.slow
def test_two_ranks_train_sdxl(place: RunPlace, tmp_path: Path) -> None:
    """The last layer of its first text encoder has no gradient in any rank, and weight decay must leave it alone."""
    spec = spec_of(small_sdxl(tmp_path / "sdxl"), place, meta={"trainTextEncoder": True, "weightDecay": 1.0})
    check_against_one(spec, place)


def check_against_one(spec: TrainingSpec, place: RunPlace) -> None:
    """Losses within 1e-4 and every tensor within 1e-3 of its length (found: 3e-7 and 5e-6), and both ranks equal."""
    one = train_steps(Ranks(), spec, place, STEPS)
    first, second = values(run_ranks(train_steps, spec, place, STEPS))
    assert whole_state(first) == whole_state(second)
    assert first.images == one.images
    assert first.losses == pytest.approx(one.losses, rel=1e-4)
    assert first.grad_norms == pytest.approx(one.grad_norms, rel=1e-3)
    assert first.validation == (None if one.validation is None else pytest.approx(one.validation, rel=1e-4))
    for ours, theirs in ((first.state.adapter, one.state.adapter), (first.state.export, one.state.export)):
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert (ours[name] - tensor).norm() <= 1e-3 * tensor.norm(), name


@pytest.mark.slow
def test_infinite_gradients_in_one_rank_make_all_skip_the_step(sd15: Path, place: RunPlace) -> None:
    """A loss scale that the first steps overflow at, and a batch that leaves the first rank without an image."""
    spec = spec_of(sd15, place, precision="fp16", batchSize=1)
    first, second = values(run_ranks(train_steps, spec, place, STEPS, 2.0**26))
    assert whole_state(first) == whole_state(second)
    is_finite = [math.isfinite(norm) for norm in first.grad_norms]
    skipped = is_finite.index(True)
    assert skipped > 0
    assert is_finite == [False] * skipped + [True] * (STEPS - skipped)
    assert first.state.scalars["scaler"]["scale"] == 2.0 ** (26 - skipped)
