"""Runs and attempts of two ranks: the files of one device, exactly resumable, and no rank that outlives the other."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from influencerai.demo.characters import model_path
from influencerai.domain import StepEvent, TrainingSpec
from influencerai.domain.output_path import RUN_MARKER
from influencerai.files import safetensors_file
from influencerai.job_process.messages import Completed, Failed, Prepared, Progress, Stopped, TrainingRequest
from influencerai.train.runs.training_state import list_states
from tests.attempts import DATASET, OUTPUT, lora_files, make_request, write_pictures
from tests.train.rank_processes import Ending, run_ranks, values
from tests.train.rank_work import carry_out, train_run
from tests.training_runs import RunPlace, make_config, make_settings, make_spec

RANDOM: dict[str, Any] = {"gradientAccumulation": 2, "captionDropout": 0.3, "flip": True, "validationSplit": 0.2}
SECONDS_TO_NOTICE = 5.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    write_pictures(root, count=5)
    return root


@pytest.fixture(scope="module")
def spec(root: Path) -> TrainingSpec:
    """Six steps, each of a batch of three images and one of one."""
    meta = RANDOM | {"gpus": 2, "saveEveryNEpochs": 2, "samplePrompts": ["ohwx"], "sampleEveryNEpochs": 6}
    config = make_config(model_path(), batchSize=3, epochs=6, meta=meta)
    return make_spec(config, root / DATASET, settings=make_settings(root))


@pytest.fixture(scope="module")
def undisturbed(root: Path, spec: TrainingSpec) -> RunPlace:
    """The run of two ranks, which begin with an empty cache."""
    run = place(root, "two")
    first, second = values(run_ranks(train_run, spec, run))
    assert first == second
    assert first["checkpoints"] == [
        "test-run-epoch-2.safetensors",
        "test-run-epoch-4.safetensors",
        "test-run-final.safetensors",
    ]
    return run


def place(root: Path, name: str, *, cache: Path | None = None) -> RunPlace:
    return RunPlace(root / name, dataset=root / DATASET, cache=cache)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def history(run: RunPlace) -> list[dict[str, Any]]:
    lines = (run.run_dir / "history.jsonl").read_text().splitlines()
    return [{name: record[name] for name in ("type", "step", "loss")} for record in map(json.loads, lines)]


@pytest.mark.campaign
def test_two_ranks_leave_the_files_and_the_figures_of_one_device(
    undisturbed: RunPlace, root: Path, spec: TrainingSpec
) -> None:
    one = place(root, "one")
    one.train(spec)
    assert files(undisturbed.output) == files(one.output)
    assert files(undisturbed.cache) == files(one.cache)
    assert not {name for name in files(undisturbed.run_dir) if not name.startswith(("state-", "history"))}
    ours, theirs = history(undisturbed), history(one)
    assert [(record["type"], record["step"]) for record in ours] == [(item["type"], item["step"]) for item in theirs]
    assert [record["loss"] for record in ours] == pytest.approx([record["loss"] for record in theirs], rel=1e-4)
    first, second = safetensors.torch.load(undisturbed.final(spec)), safetensors.torch.load(one.final(spec))
    assert first.keys() == second.keys()
    for name, tensor in second.items():
        assert (first[name] - tensor).norm() <= 1e-3 * tensor.norm(), name


@pytest.mark.campaign
@pytest.mark.parametrize("stops", [(), (2, 2)], ids=["the same run again", "a run in three parts"])
def test_two_ranks_give_the_same_bytes(
    stops: tuple[int, ...], undisturbed: RunPlace, root: Path, spec: TrainingSpec
) -> None:
    again = place(root, f"again-{len(stops)}", cache=undisturbed.cache)
    values(run_ranks(train_run, spec, again, stops))
    assert lora_files(again.output) == lora_files(undisturbed.output)
    assert history(again) == history(undisturbed)
    assert files(again.output) == files(undisturbed.output)


@pytest.fixture
def order(root: Path, tmp_path: Path) -> TrainingRequest:
    """An attempt of four steps, of two images each."""
    write_pictures(tmp_path, count=4)
    config = {"batchSize": 2, "meta": {"gpus": 2}}
    return make_request(tmp_path, config=config, cache_dir=root / "attempts")


def attempt(
    order: TrainingRequest, *, follower: TrainingRequest | None = None, **work: Any
) -> tuple[list[Any], list[Ending]]:
    """What the first rank has said, and how both have ended."""
    endings = run_ranks(functools.partial(carry_out, **work), [order, follower or order])
    return endings[0].value or [], endings


def warnings(messages: list[Any]) -> tuple[str, ...]:
    completed = messages[-1]
    assert isinstance(completed, Completed)
    return completed.result.warnings


def steps(messages: list[Any]) -> list[int]:
    events = [message.event for message in messages if isinstance(message, Progress)]
    return [event.step for event in events if isinstance(event, StepEvent)]


def spec_in(messages: list[Any]) -> TrainingSpec:
    [spec] = [message.spec for message in messages if isinstance(message, Prepared)]
    return spec


def check_endings(endings: list[Ending]) -> None:
    """Both processes have ended by themselves, the one soon after the other."""
    assert [ending.code for ending in endings] == [0, 0]
    assert abs(endings[0].ended_at - endings[1].ended_at) < SECONDS_TO_NOTICE


@pytest.mark.slow
def test_an_attempt_is_stopped_and_gone_on_with(order: TrainingRequest) -> None:
    first, endings = attempt(order, stop_at=3)
    check_endings(endings)
    assert isinstance(first[-1], Stopped)
    assert first[-1].failure.error == "Stopped at step 3 of 4; the state is saved."
    spec = spec_in(first)
    assert spec.plan.world_size == 2
    [prepared] = [message for message in first if isinstance(message, Prepared)]
    assert not [warning for warning in prepared.warnings if "gpus" in warning]

    second, endings = attempt(order.model_copy(update={"spec": spec, "warnings": prepared.warnings}))
    check_endings(endings)
    assert isinstance(second[-1], Completed)
    assert second[-1].result.warnings == prepared.warnings
    assert (steps(first), steps(second)) == ([1, 2, 3], [4])
    names = ["test-run-epoch-1.safetensors", "test-run-final.safetensors"]
    assert files(order.root / OUTPUT) == {RUN_MARKER, *names}
    metadata, _ = safetensors_file.read_safetensors_header(order.root / OUTPUT / names[-1])
    assert (metadata["ss_total_batch_size"], metadata["ss_batch_size_per_device"]) == ("2", "1")


@pytest.mark.slow
def test_the_dry_run_is_made_by_the_first_rank(order: TrainingRequest) -> None:
    messages, endings = attempt(order.model_copy(update={"backend": "dry-run"}))
    check_endings(endings)
    assert isinstance(messages[-1], Completed)
    assert files(order.root / OUTPUT) == {RUN_MARKER, "test-run-final.safetensors"}


@pytest.mark.slow
def test_a_dataset_that_cannot_be_trained_on_ends_both(order: TrainingRequest) -> None:
    for path in (order.root / DATASET).iterdir():
        path.unlink()
    messages, endings = attempt(order)
    check_endings(endings)
    assert isinstance(messages[-1], Failed)
    assert (messages[-1].code, messages[-1].retryable) == ("dataset", False)


@pytest.mark.slow
def test_a_full_disk_at_the_first_rank_ends_both(order: TrainingRequest) -> None:
    """It cannot save the state at the end of the first epoch, while the other waits for the next step."""
    messages, endings = attempt(order, largest_file=100_000)
    check_endings(endings)
    assert steps(messages) == [1, 2]
    failed = messages[-1]
    assert isinstance(failed, Failed)
    assert failed.retryable
    assert "cannot be written: File too large" in failed.message


def test_what_only_the_other_rank_lacks_is_told_by_the_first(order: TrainingRequest, tmp_path: Path) -> None:
    messages, endings = attempt(order, follower=order.model_copy(update={"models_dirs": (tmp_path / "none",)}))
    check_endings(endings)
    assert isinstance(messages[-1], Failed)
    assert (messages[-1].code, messages[-1].retryable) == ("model", False)
    assert "There is no base model" in messages[-1].message


@pytest.mark.slow
def test_a_first_rank_that_is_killed_ends_the_other(order: TrainingRequest) -> None:
    _, (first, second) = attempt(order, kill=(2, 0))
    assert (first.code, second.code) == (-9, 0)
    assert second.ended_at - first.ended_at < SECONDS_TO_NOTICE


@pytest.mark.campaign
def test_an_attempt_whose_other_rank_is_killed_is_tried_again(order: TrainingRequest) -> None:
    messages, (first, second) = attempt(order, kill=(3, 1))
    assert (first.code, second.code) == (0, -9)
    assert first.ended_at - second.ended_at < SECONDS_TO_NOTICE
    failed = messages[-1]
    assert isinstance(failed, Failed)
    assert failed.retryable
    assert "Another process of this training is gone" in failed.message
    again, endings = attempt(order.model_copy(update={"spec": spec_in(messages)}))
    check_endings(endings)
    assert isinstance(again[-1], Completed)
    assert steps(again) == [3, 4], "from the state of the first epoch"
    assert list_states(order.run_dir)


@pytest.mark.campaign
def test_a_run_of_two_ranks_goes_on_with_one_where_there_is_no_other(order: TrainingRequest) -> None:
    messages, _ = attempt(order, stop_at=2)
    [ending] = run_ranks(carry_out, [order.model_copy(update={"spec": spec_in(messages)})], count=1)
    assert any("started with worldSize 2 and goes on with worldSize 1" in text for text in warnings(ending.value))
