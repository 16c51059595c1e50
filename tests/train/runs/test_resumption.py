"""What `resume` and `init_from` go on with, wherever the run lies now and whatever machine it is on."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from influencerai import Trainer
from influencerai.domain import output_path
from influencerai.errors import CheckpointError, StoppedError
from influencerai.files import safetensors_file
from influencerai.train.runs.folder import RunFolder
from influencerai.train.runs.run import Run
from tests.small_models import small_sd15
from tests.training_runs import make_config, make_settings, stop_after, write_dataset


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("model") / "sd15")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, sd15: Path) -> bytes:
    """The final file of two epochs without an interruption."""
    root = tmp_path_factory.mktemp("straight")
    shutil.copytree(sd15, root / "models/sd15")
    write_dataset(root / "me")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        return train(root).lora_path.read_bytes()


@pytest.fixture
def root(tmp_path: Path, sd15: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    root = tmp_path / "project"
    shutil.copytree(sd15, root / "models/sd15")
    write_dataset(root / "me")
    return root


def train(root: Path, *, stop: int | None = None, resume: bool = False, threads: int | None = 1, **changes: Any) -> Run:
    should_stop = None if stop is None else stop_after(stop)
    start = changes.pop("init_from", None)
    dataset = changes.pop("dataset", "me")
    config = make_config(changes.pop("model", "sd15"), **changes)
    trainer = Trainer(
        config, settings=make_settings(root, threads=threads), on_event=lambda _: None, should_stop=should_stop
    )
    return trainer.train(dataset, resume=resume, init_from=start)


def stopped(root: Path, steps: int = 2, **changes: Any) -> None:
    with pytest.raises(StoppedError):
        train(root, stop=steps, **changes)


@pytest.mark.campaign
def test_a_run_goes_on_with_its_own_threads(root: Path, straight: bytes) -> None:
    stopped(root)
    run = train(root, resume=True, threads=2)
    assert run.spec.plan.threads == 1
    assert any("keeps its 1 threads" in text for text in run.result.warnings)
    assert run.lora_path.read_bytes() == straight


@pytest.mark.campaign
def test_a_project_that_has_moved_goes_on(root: Path, straight: bytes) -> None:
    stopped(root)
    moved = root.with_name("elsewhere")
    root.rename(moved)
    run = train(moved, resume=True, dataset=moved / "me", model=moved / "models/sd15")
    assert run.output_dir == moved / "data/loras/test-run"
    assert run.lora_path.read_bytes() == straight
    assert len(run.history) == 6


@pytest.mark.campaign
def test_a_run_that_wrote_down_no_root_is_found_in_its_project(root: Path, straight: bytes) -> None:
    stopped(root)
    [file] = root.glob(".influencerai/runs/*/output.json")
    document = json.loads(file.read_text())
    file.write_text(json.dumps({name: document[name] for name in ("requested", "backend")}))
    moved = root.with_name("elsewhere")
    root.rename(moved)
    assert train(moved, resume=True).lora_path.read_bytes() == straight


@pytest.mark.campaign
def test_a_precision_that_is_the_runs_own_changes_nothing(root: Path, straight: bytes) -> None:
    stopped(root)
    with pytest.raises(CheckpointError, match=r'options\.precision: "auto" -> "bf16"'):
        train(root, resume=True, meta={"precision": "bf16"})
    run = train(root, resume=True, meta={"precision": "fp32"})
    assert (run.spec.options.precision, run.lora_path.read_bytes()) == ("auto", straight)


@pytest.mark.slow
def test_a_damaged_record_is_named_in_our_own_words(root: Path) -> None:
    stopped(root)
    [file] = root.glob(".influencerai/runs/*/spec.json")
    content = file.read_bytes()
    file.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match=r"spec\.json is damaged \(.*delete that folder") as raised:
        train(root, resume=True)
    assert "pydantic" not in str(raised.value)
    file.write_bytes(content)
    (root / "data/loras/test-run/test-run-final.safetensors").touch()
    file.with_name("result.json").write_text('{"loraPath": "data/loras/test-run/test-run-final.safetensors"}')
    with pytest.raises(CheckpointError, match=r"result\.json is damaged"):
        train(root, resume=True)


@pytest.mark.slow
def test_another_device_is_refused_from_what_to_what(root: Path) -> None:
    stopped(root)
    [file] = root.glob(".influencerai/runs/*/spec.json")
    document = json.loads(file.read_text())
    document["plan"] |= {"device": "cuda", "deviceName": "NVIDIA H200"}
    file.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"plan\.device: cuda \(NVIDIA H200\) -> cpu"):
        train(root, resume=True)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_other_epochs(root: Path) -> None:
    stopped(root, steps=4, meta={"lrScheduler": "constant", "warmupSteps": 0})
    run = train(root, resume=True, epochs=3, meta={"lrScheduler": "constant", "warmupSteps": 0})
    assert [record["step"] for record in run.history] == list(range(1, 10))
    assert run.output_dir == root / "data/loras/test-run"
    assert run.spec.origin is not None
    assert run.spec.origin.keeps_optimizer
    whole = train(root, epochs=3, outputPath="whole", meta={"lrScheduler": "constant", "warmupSteps": 0})
    mine, theirs = (safetensors.torch.load_file(path.lora_path) for path in (run, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs), "a constant rate makes them one training"


@pytest.mark.campaign
def test_the_rate_of_other_epochs_follows_their_schedule(root: Path) -> None:
    stopped(root, steps=5, meta={"lrScheduler": "linear", "warmupSteps": 0})
    run = train(root, resume=True, epochs=4, meta={"lrScheduler": "linear", "warmupSteps": 0})
    rates = [record["learningRate"] for record in run.history]
    assert rates[4] == pytest.approx(0.001 * 2 / 6)
    assert rates[5] == pytest.approx(0.001 * 7 / 12)
    assert any("2 -> 4" in text and "linear" in text for text in run.result.warnings)


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_epochs(root: Path) -> None:
    first = train(root)
    before = first.lora_path.read_bytes()
    run = train(root, resume=True, epochs=3)
    assert run.lora_path == first.lora_path
    assert (run.output_dir / "test-run-epoch-2.safetensors").read_bytes() == before
    assert [record["step"] for record in run.history] == list(range(1, 10))
    assert run.spec.origin is not None
    assert run.spec.origin.run == first.spec.id
    metadata, _ = safetensors_file.read_safetensors_header(run.lora_path)
    assert json.loads(metadata["ss_influencerai_origin"])["run"] == first.spec.id
    again = train(root, resume=True, epochs=3)
    assert again.run_dir == run.run_dir
    with pytest.raises(CheckpointError, match=r"config\.epochs: 3 -> 1: 3 epochs are done"):
        train(root, resume=True, epochs=1)


@pytest.mark.campaign
def test_a_continued_run_keeps_the_folder_that_it_took_over(root: Path) -> None:
    dry(root, "me", outputPath="out")
    first = dry(root, "me", outputPath="out", meta={"seed": 2})
    folders = [first.output_dir]
    for epochs in (3, 4):
        folders.append(dry(root, "me", outputPath="out", meta={"seed": 2}, epochs=epochs, resume=True).output_dir)
    record = RunFolder.all(root / ".influencerai/runs")[0]
    assert set(folders) == {first.output_dir}
    assert first.output_dir.name.startswith("out-")
    (record.path / "result.json").unlink()  # as if it had been stopped
    assert dry(root, "me", outputPath="out", meta={"seed": 2}, epochs=4, resume=True).output_dir == first.output_dir


@pytest.mark.slow
def test_a_continued_run_that_is_stopped_resumes_exactly(root: Path) -> None:
    train(root)
    shutil.copytree(root, other := root.with_name("copy"))
    whole = train(root, resume=True, epochs=4)
    stopped(other, steps=2, resume=True, epochs=4)
    parts = train(other, resume=True, epochs=4)
    assert parts.lora_path.read_bytes() == whole.lora_path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_run_starts_with_the_weights_of_a_file(root: Path, layout: str) -> None:
    first = train(root, epochs=1, meta={"fileFormat": layout})
    run = train(
        root, epochs=1, learningRate=1e-6, outputPath="second", init_from=first.lora_path, networkAlpha=4,
    )  # fmt: skip
    assert run.spec.origin is not None
    assert run.spec.origin.file == first.lora_path.name
    weights = {name: tensor.float() for name, tensor in safetensors.torch.load_file(run.lora_path).items()}
    ups = [tensor for name, tensor in weights.items() if name.endswith("lora_up.weight")]
    if layout == "kohya":
        start = safetensors.torch.load_file(first.lora_path)
        name = next(name for name in start if name.endswith("lora_up.weight"))
        torch.testing.assert_close(weights[name] * 2, start[name].float(), atol=2e-4, rtol=0.02)
    assert any(tensor.abs().max() > 1e-4 for tensor in ups)
    assert train(root, epochs=1, outputPath="third", init_from=first.output_dir).spec.origin == run.spec.origin
    assert train(root, epochs=1, outputPath="fourth", init_from=first.run_dir).spec.origin == run.spec.origin


@pytest.mark.campaign
def test_a_run_that_leaves_its_first_weights_as_they_were_is_no_success(root: Path) -> None:
    first = train(root, epochs=1, networkAlpha=4)
    meta = {"maxGradNorm": 1e-12, "weightDecay": 0}
    run = train(root, epochs=1, networkAlpha=4, outputPath="second", init_from=first.lora_path, meta=meta)
    assert (first.result.learned, run.result.learned) == (None, False)
    assert any("holds the weights that it started with" in text for text in run.result.warnings)


@pytest.mark.slow
def test_first_weights_that_do_not_fit_are_refused_from_what_to_what(root: Path) -> None:
    first = train(root, epochs=1)
    with pytest.raises(CheckpointError, match=r"networkDim 4 -> 8"):
        train(root, networkDim=8, outputPath="second", init_from=first.lora_path)
    with pytest.raises(CheckpointError, match="adapts other modules than the run: it has"):
        train(root, outputPath="third", init_from=first.lora_path, meta={"targetModules": "attention"})
    with pytest.raises(CheckpointError, match="neither a LoRA file nor the folder"):
        train(root, outputPath="fourth", init_from="me")


@pytest.mark.campaign
def test_what_was_not_chosen_follows_the_run(root: Path) -> None:
    stopped(root, meta={"repeats": 2})
    [file] = root.glob(".influencerai/runs/*/spec.json")
    config = make_config("sd15").model_dump(by_alias=True, exclude={"epochs"})
    trainer = Trainer(type(make_config("sd15")).parse(config), settings=make_settings(root), on_event=lambda _: None)
    run = trainer.train("me", resume=True)
    assert (run.run_dir, run.spec.config.epochs, run.spec.options.repeats) == (file.parent, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "slug"), [("Zoë", "zo"), ("魔女", "lora")])
def test_a_run_of_an_earlier_version_is_found_by_its_name(
    name: str, slug: str, root: Path, straight: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names gave other slugs then, of ASCII letters alone."""
    with monkeypatch.context() as patch:
        patch.setattr(output_path, "name_slug", lambda _: slug)
        stopped(root, name=name, outputPath=None)
        stopped(root, name="Another", outputPath=None)
    [file] = (file for file in root.glob(".influencerai/runs/*/output.json") if name in beside(file))
    document = json.loads(file.read_text())
    file.write_text(json.dumps({key: document[key] for key in ("requested", "backend")}))
    moved = root.with_name("elsewhere")
    root.rename(moved)
    run = train(moved, resume=True, name=unicodedata.normalize("NFD", name), outputPath=None)
    assert (run.run_dir.name, run.spec.output_name) == (file.parent.name, slug)
    assert run.output_dir.parent == moved / "data/loras"
    assert run.lora_path.name == f"{slug}-final.safetensors"
    assert any(f"goes on in {moved / 'data/loras' / slug}, where" in text for text in run.result.warnings)
    assert safetensors_file.model_hash(run.lora_path.read_bytes()) == safetensors_file.model_hash(straight)
    again = train(moved, resume=True, name=name, outputPath=None)
    assert again.run_dir == run.run_dir
    fresh = train(moved, name=name, outputPath=None)
    assert fresh.output_dir == moved / "data/loras" / output_path.name_slug(name)


def beside(file: Path) -> str:
    return file.with_name("spec.json").read_text()


def dry(root: Path, name: str, *, resume: bool = False, **changes: Any) -> Run:
    config = make_config("sd15", **{"name": name, "outputPath": None} | changes)
    trainer = Trainer(config, settings=make_settings(root), backend="dry-run", on_event=lambda _: None)
    return trainer.train("me", resume=resume)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("Zoë", "Zoe", "Zöe"), ("!!!", "???"), ("a b", "a/b")])
def test_names_with_one_slug_name_their_files_apart(names: tuple[str, ...], root: Path) -> None:
    runs = [dry(root, name) for name in names]
    assert len({run.lora_path.name for run in runs}) == len(names)
    for run in runs:
        metadata, _ = safetensors_file.read_safetensors_header(run.lora_path)
        assert metadata["ss_output_name"] == run.output_dir.name == run.spec.output_name
    for name, run in zip(names, runs, strict=True):
        assert dry(root, name.upper(), resume=True).run_dir == run.run_dir
