"""A run that is interrupted and continued ends with the bytes of one that is not."""

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import torch

from influencerai.domain import TrainingSpec
from influencerai.domain.training_options import Optimizer
from influencerai.errors import CheckpointError, StoppedError
from influencerai.files import safetensors_file
from influencerai.train.runs.training_state import TrainingState, list_states, load_newest
from tests.small_models import small_sd15, small_sdxl
from tests.training_runs import RunPlace, make_config, make_settings, make_spec, stop_after, write_dataset

EVERYTHING: dict[str, Any] = {
    "gradientAccumulation": 2,
    "ema": True,
    "captionDropout": 0.3,
    "shuffleTags": True,
    "flip": True,
    "noiseOffset": 0.05,
    "saveEveryNEpochs": 1,
    "validationSplit": 0.2,
    "trainTextEncoder": True,
    "targetModules": "all",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("model") / "sd15")


def spec_of(dataset: Path, model: Path, root: Path, **changes: Any) -> TrainingSpec:
    return make_spec(make_config(model, **changes), dataset, settings=make_settings(root))


def run_straight(place: RunPlace, spec: TrainingSpec) -> bytes:
    place.train(spec)
    return place.final(spec)


def run_in_parts(place: RunPlace, spec: TrainingSpec, *, stops: list[int]) -> bytes:
    for steps in stops:
        with pytest.raises(StoppedError):
            place.train(spec, should_stop=stop_after(steps))
    place.train(spec)
    return place.final(spec)


def optimizers() -> list[Any]:
    """One in CI; the others in the campaign."""
    quick = ("AdamW",)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.campaign) for name in get_args(Optimizer)]


@pytest.mark.slow
@pytest.mark.parametrize("name", optimizers())
def test_every_optimizer_resumes_exactly_with_everything_on(
    name: str, dataset: Path, sd15: Path, tmp_path: Path
) -> None:
    # bitsandbytes keeps 8-bit state of tensors from 4096 values on only.
    wide = {"networkDim": 64} if name == "AdamW8bit" else {}
    spec = spec_of(dataset, sd15, tmp_path, meta=EVERYTHING | {"optimizer": name}, **wide)
    straight = RunPlace(tmp_path / "straight", dataset=dataset)
    parts = RunPlace(tmp_path / "parts", dataset=dataset)
    assert run_straight(straight, spec) == run_in_parts(parts, spec, stops=[1, 1])
    names = sorted(path.name for path in straight.output.glob("*.safetensors"))
    assert names == ["test-run-epoch-1.safetensors", "test-run-final.safetensors"]
    for file in names:
        assert (straight.output / file).read_bytes() == (parts.output / file).read_bytes()


@pytest.mark.campaign
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sdxl_resumes_exactly(precision: str, dataset: Path, tmp_path: Path) -> None:
    model = small_sdxl(tmp_path / "sdxl")
    meta = {"precision": precision, "captionDropout": 0.2, "gradientCheckpointing": True}
    spec = spec_of(dataset, model, tmp_path, meta=meta)
    straight = run_straight(RunPlace(tmp_path / "straight", dataset=dataset), spec)
    assert run_in_parts(RunPlace(tmp_path / "parts", dataset=dataset), spec, stops=[2]) == straight


@pytest.mark.slow
def test_a_warm_cache_gives_the_bytes_of_a_cold_one(dataset: Path, sd15: Path, tmp_path: Path) -> None:
    spec = spec_of(dataset, sd15, tmp_path, epochs=1, meta={"flip": True, "shuffleTags": True})
    cold = RunPlace(tmp_path / "cold", dataset=dataset, cache=tmp_path / "cache")
    warm = RunPlace(tmp_path / "warm", dataset=dataset, cache=tmp_path / "cache")
    assert run_straight(cold, spec) == run_straight(warm, spec)
    entries = list((tmp_path / "cache").glob("*/*.tensors"))
    assert entries


@pytest.mark.slow
def test_history_and_figures_of_a_resumed_run_are_those_of_a_straight_one(
    dataset: Path, sd15: Path, tmp_path: Path
) -> None:
    spec = spec_of(dataset, sd15, tmp_path, meta={"validationSplit": 0.2})
    straight = RunPlace(tmp_path / "straight", dataset=dataset)
    parts = RunPlace(tmp_path / "parts", dataset=dataset)
    first = straight.train(spec)
    with pytest.raises(StoppedError):
        parts.train(spec, should_stop=stop_after(3))
    second = parts.train(spec)
    assert (first.final_loss, first.validation_loss) == (second.final_loss, second.validation_loss)
    assert first.checkpoints == second.checkpoints

    def figures(place: RunPlace) -> list[Any]:
        lines = (place.run_dir / "history.jsonl").read_text().splitlines()
        return [(record["type"], record["step"], record["loss"]) for record in map(json.loads, lines)]

    assert figures(straight) == figures(parts)


@pytest.mark.slow
def test_a_damaged_state_is_passed_over_for_the_one_before(dataset: Path, sd15: Path, tmp_path: Path) -> None:
    spec = spec_of(dataset, sd15, tmp_path)
    straight = run_straight(RunPlace(tmp_path / "straight", dataset=dataset), spec)
    place = RunPlace(tmp_path / "parts", dataset=dataset)
    for steps in (2, 1):
        with pytest.raises(StoppedError):
            place.train(spec, should_stop=stop_after(steps))
    newest = list_states(place.run_dir)[-1]
    whole = newest.read_bytes()
    data = bytearray(whole)
    data[-100] ^= 0xFF
    newest.write_bytes(data)
    restored = load_newest(place.run_dir, spec_id=spec.id)
    assert restored is not None
    assert restored.step == 2
    newest.write_bytes(whole.replace(b"epoch_loss", b"epoch_lost"))
    with pytest.raises(CheckpointError, match="damaged"):
        TrainingState.load(newest)
    place.train(spec)
    assert place.final(spec) == straight


@pytest.mark.slow
def test_a_state_of_another_spec_is_refused(dataset: Path, sd15: Path, tmp_path: Path) -> None:
    spec = spec_of(dataset, sd15, tmp_path)
    place = RunPlace(tmp_path / "run", dataset=dataset)
    with pytest.raises(StoppedError):
        place.train(spec, should_stop=stop_after(1))
    other = spec_of(dataset, sd15, tmp_path, learningRate=0.002)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        place.train(other)


@pytest.mark.slow
def test_states_hold_no_pickle(dataset: Path, sd15: Path, tmp_path: Path) -> None:
    spec = spec_of(dataset, sd15, tmp_path, epochs=1)
    place = RunPlace(tmp_path / "run", dataset=dataset)
    place.train(spec)
    assert {path.suffix for path in place.run_dir.iterdir()} <= {".safetensors", ".jsonl"}


@pytest.mark.parametrize("document", ["[]", "{}", "{", '{"step": "x"}', "null"])
def test_a_state_with_another_document_is_no_state(document: str, tmp_path: Path) -> None:
    body = safetensors.torch.save({"adapter/a": torch.zeros(2)})
    digest = hashlib.sha256(document.encode() + safetensors_file.canonical_safetensors(body, {})).hexdigest()
    path = tmp_path / "state-00000001.safetensors"
    path.write_bytes(safetensors_file.canonical_safetensors(body, {"state": document, "sha256": digest}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        TrainingState.load(path)
