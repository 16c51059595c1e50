"""Trainer and Run: what a notebook sees."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from influencerai import Run, Trainer, compare
from influencerai.domain import (
    CheckpointEvent,
    Event,
    LoraConfig,
    SampleEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
    WarningEvent,
)
from influencerai.domain.lora_config_record import LoraConfigRecord
from influencerai.errors import (
    CheckpointError,
    DatasetError,
    DivergedError,
    ExportError,
    ModelError,
    OutOfMemoryError,
    StoppedError,
    TrainingError,
    ValidationError,
)
from influencerai.files import safetensors_file
from influencerai.generate.sampler import Sampler
from influencerai.models.device import memory_errors
from influencerai.models.model_components import damage_errors
from influencerai.train.runs.folder import RunFolder
from influencerai.train.runs.history import History, read_history
from influencerai.training_plan.memory import smaller_setting
from tests.small_models import small_sd15
from tests.training_runs import RunPlace, make_config, make_settings, make_spec, stop_after, write_dataset


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("model") / "sd15")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data/datasets/me")
    return tmp_path


def trainer(root: Path, model: Path, *, events: list[Event] | None = None, **changes: Any) -> Trainer:
    listener = events.append if events is not None else None
    return Trainer(make_config(model, **changes), settings=make_settings(root), on_event=listener)


@pytest.mark.slow
def test_a_run_ends_with_the_contracts_result(root: Path, sd15: Path) -> None:
    events: list[Event] = []
    config: dict[str, Any] = {"epochs": 8, "outputPath": "./data/loras/me-v1/", "meta": {"validationSplit": 0.2}}
    run = trainer(root, sd15, events=events, **config).train("data/datasets/me")
    assert run.result.lora_path == "data/loras/me-v1/me-v1-final.safetensors"
    assert run.result.checkpoints == (
        "me-v1-epoch-2.safetensors",
        "me-v1-epoch-4.safetensors",
        "me-v1-epoch-6.safetensors",
        "me-v1-final.safetensors",
    )
    assert all((run.output_dir / name).is_file() for name in run.result.checkpoints)
    assert run.lora_path.is_file()
    last = [record["loss"] for record in run.history if record["epoch"] == 8]
    assert run.result.final_loss == pytest.approx(sum(last) / len(last))
    assert set(run.result.to_wire()) >= {"loraPath", "checkpoints", "finalLoss", "trainingTimeMinutes"}
    assert [record["step"] for record in run.history] == list(range(1, len(run.history) + 1))
    assert {"epoch", "loss", "learningRate", "imagesPerSecond"} <= run.history[0].keys()
    assert len(run.validation_history) == 8
    stages = [event.stage for event in events if isinstance(event, StageEvent)]
    assert stages.index("encoding images") < stages.index("loading") < stages.index("training")
    assert sum(isinstance(event, StepEvent) for event in events) == len(run.history)
    assert len([event for event in events if isinstance(event, CheckpointEvent)]) == 4


@pytest.mark.slow
def test_a_trained_run_draws_and_plots(root: Path, sd15: Path) -> None:
    run = trainer(root, sd15, epochs=1, learningRate=0.05).train("data/datasets/me")
    run.plot(root / "loss.png")
    assert Image.open(root / "loss.png").width > 400
    pictures = run.sample("ohwx woman, smiling", count=2, steps=2)
    assert [picture.size for picture in pictures] == [(128, 128)] * 2
    assert run.sample("ohwx woman, smiling", count=2, steps=2)[1].tobytes() == pictures[1].tobytes()
    weaker = run.sample("ohwx woman, smiling", steps=2, strength=0.0)[0]
    assert weaker.tobytes() != pictures[0].tobytes()


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_bytes(tmp_path: Path, sd15: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    files = []
    for name in ("a", "b"):
        root = tmp_path / name
        write_dataset(root / "me")
        files.append(trainer(root, sd15).train("me").lora_path.read_bytes())
    assert files[0] == files[1]


@pytest.mark.slow
def test_training_starts_at_the_base_model_and_moves_away(root: Path, sd15: Path) -> None:
    run = trainer(root, sd15, learningRate=0.01, epochs=1).train("data/datasets/me")
    tensors = safetensors.torch.load_file(run.lora_path)
    ups = [tensor for name, tensor in tensors.items() if name.endswith("lora_up.weight")]
    assert ups
    assert all(torch.any(up != 0) for up in ups)
    assert all(float(tensors[name]) == 2 for name in tensors if name.endswith(".alpha"))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"learningRate": 1e-4, "meta": {"optimizer": "Prodigy"}}])
def test_a_training_that_learned_nothing_is_no_success(root: Path, sd15: Path, changes: dict[str, Any]) -> None:
    run = trainer(root, sd15, **changes).train("data/datasets/me")
    assert run.result.learned is False
    assert any("learned nothing" in warning for warning in run.result.warnings)
    assert run.result.to_wire()["learned"] is False


@pytest.mark.campaign
def test_prodigy_learns_at_the_rate_that_it_has_without_one(root: Path, sd15: Path) -> None:
    document = make_config(sd15, epochs=8, meta={"optimizer": "Prodigy"}).to_wire()
    del document["learningRate"]
    config = LoraConfig.parse(document)
    run = Trainer(config, settings=make_settings(root), on_event=lambda _: None).train("data/datasets/me")
    assert run.spec.config.learning_rate == 1
    assert run.result.learned is None


@pytest.mark.slow
def test_a_run_shows_and_stores_how_much_it_shows(root: Path, sd15: Path) -> None:
    events: list[Event] = []
    run = trainer(root, sd15, events=events, epochs=1, meta={"imagesSeen": 11}).train("data/datasets/me")
    details = [event.detail for event in events if isinstance(event, StageEvent) and event.detail]
    assert details == ["5 images x 2 repeats x 1 epoch: 10 images seen in 5 steps; one file at the end."]
    assert (run.spec.options.images_seen, run.spec.options.repeats, run.result.images_seen) == (11, 2, 10)
    metadata, _ = safetensors_file.read_safetensors_header(run.lora_path)
    assert metadata["ss_influencerai_images_seen"] == "10"


@pytest.mark.slow
def test_a_stopped_run_is_resumed_by_its_output_path(root: Path, sd15: Path) -> None:
    config = make_config(sd15)
    settings = make_settings(root)
    with pytest.raises(StoppedError, match="step 2 of 6"):
        Trainer(config, settings=settings, should_stop=stop_after(2)).train("data/datasets/me")
    run = Trainer(config, settings=settings).train("data/datasets/me", resume=True)
    assert len(run.history) == 6
    before = run.lora_path.stat().st_mtime_ns
    again = Trainer(config, settings=settings).train("data/datasets/me", resume=True)
    assert (again.run_dir, again.result) == (run.run_dir, run.result)
    assert again.lora_path.stat().st_mtime_ns == before


@pytest.mark.slow
def test_resuming_with_other_settings_names_them(root: Path, sd15: Path) -> None:
    settings = make_settings(root)
    with pytest.raises(StoppedError):
        Trainer(make_config(sd15), settings=settings, should_stop=stop_after(1)).train("data/datasets/me")
    other = make_config(sd15, networkDim=8, meta={"seed": 7})
    with pytest.raises(CheckpointError, match=r"config\.networkDim: 4 -> 8, options\.seed: 42 -> 7\."):
        Trainer(other, settings=settings).train("data/datasets/me", resume=True)
    (root / "data/datasets/me/00.txt").write_text("changed")
    with pytest.raises(CheckpointError, match="samples: 1 changed of 5 pictures"):
        Trainer(make_config(sd15), settings=settings).train("data/datasets/me", resume=True)


@pytest.mark.slow
def test_two_processes_do_not_train_one_run(root: Path, sd15: Path) -> None:
    settings = make_settings(root)
    with pytest.raises(StoppedError):
        Trainer(make_config(sd15), settings=settings, should_stop=stop_after(1)).train("data/datasets/me")
    [lock] = (root / ".influencerai/runs").glob("*/lock")
    with RunFolder(lock.parent).lock(), pytest.raises(CheckpointError, match="Another process"):
        Trainer(make_config(sd15), settings=settings).train("data/datasets/me", resume=True)


@pytest.mark.slow
def test_another_runs_files_are_not_overwritten(root: Path, sd15: Path) -> None:
    first = trainer(root, sd15, epochs=1).train("data/datasets/me")
    before = first.lora_path.read_bytes()
    second = trainer(root, sd15, epochs=1, learningRate=0.01).train("data/datasets/me")
    assert first.lora_path.read_bytes() == before
    assert second.result.lora_path == f"data/loras/test-run-{second.spec.id[:8]}/test-run-final.safetensors"
    assert any(str(second.output_dir) in warning for warning in second.result.warnings)


@pytest.mark.slow
def test_only_the_last_epoch_files_are_kept(root: Path, sd15: Path) -> None:
    meta = {"saveEveryNEpochs": 1, "keepLastN": 2}
    run = trainer(root, sd15, epochs=5, meta=meta).train("data/datasets/me")
    assert run.result.checkpoints == (
        "test-run-epoch-3.safetensors",
        "test-run-epoch-4.safetensors",
        "test-run-final.safetensors",
    )


@pytest.mark.slow
def test_sample_prompts_are_drawn_and_change_nothing(root: Path, sd15: Path) -> None:
    spec = make_spec(make_config(sd15), root / "data/datasets/me", settings=make_settings(root))
    plain = RunPlace(root / "plain", dataset=root / "data/datasets/me")
    plain.train(spec)
    meta = {"samplePrompts": ["ohwx woman", "ohwx woman, red background"], "sampleEveryNEpochs": 1}
    drawing = make_spec(make_config(sd15, meta=meta), root / "data/datasets/me", settings=make_settings(root))
    drawn = RunPlace(root / "drawn", dataset=root / "data/datasets/me")
    drawn.train(drawing)
    names = sorted(path.name for path in (drawn.output / "samples").iterdir())
    assert names == [
        "epoch-0000-0-ohwx-woman.png",
        "epoch-0000-1-ohwx-woman-red-background.png",
        "epoch-0001-0-ohwx-woman.png",
        "epoch-0001-1-ohwx-woman-red-background.png",
        "epoch-0002-0-ohwx-woman.png",
        "epoch-0002-1-ohwx-woman-red-background.png",
    ]
    one, other = (safetensors.torch.load(place.final(spec)) for place in (plain, drawn))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with (
        Image.open(drawn.output / "samples" / names[1]) as before,
        Image.open(drawn.output / "samples" / names[3]) as after,
    ):
        assert before.info["parameters"].startswith("ohwx woman, red background\nSteps: 25, Sampler: ")
        assert after.info["parameters"].startswith("ohwx woman, red background <lora:test-run-epoch-1:1>\n")
        assert json.loads(before.info["influencerai"])["epoch"] == 0


@pytest.mark.campaign
def test_the_first_samples_are_the_base_models_and_are_drawn_once(root: Path, sd15: Path) -> None:
    meta = {"samplePrompts": ["ohwx woman"], "sampleEveryNEpochs": 2}
    spec = make_spec(make_config(sd15, meta=meta), root / "data/datasets/me", settings=make_settings(root))
    place = RunPlace(root / "place", dataset=root / "data/datasets/me")
    with pytest.raises(StoppedError):
        place.train(spec, should_stop=stop_after(2))
    first = place.output / "samples" / "epoch-0000-0-ohwx-woman.png"
    sampler = Sampler(str(sd15), settings=make_settings(root))
    with Image.open(first) as image:
        assert image.tobytes() == sampler.draw(["ohwx woman"], seed=spec.seed, size=128)[0][0].tobytes()
    written = first.stat().st_mtime_ns
    place.train(spec)
    assert first.stat().st_mtime_ns == written
    assert [event.epoch for event in place.events if isinstance(event, SampleEvent)] == [0, 2]


@pytest.mark.campaign
def test_a_finished_run_has_its_loss_and_its_samples_as_pictures(root: Path, sd15: Path) -> None:
    meta = {"samplePrompts": ["ohwx woman", "a man"], "sampleEveryNEpochs": 1, "validationSplit": 0.2}
    changes: dict[str, Any] = {"meta": meta | {"saveEveryNEpochs": 1}, "outputPath": "data/datasets/me/out"}
    run = trainer(root, sd15, epochs=3, learningRate=0.02, **changes).train("data/datasets/me")
    with Image.open(run.output_dir / "samples.png") as sheet:
        record = json.loads(sheet.info["influencerai"])
    losses = {record["epoch"]: record["loss"] for record in run.validation_history}
    lowest = min(losses, key=lambda epoch: losses[epoch])
    names = ["base model", "epoch 1", "epoch 2", "epoch 3"]
    names[lowest] += ", lowest validation"
    assert record["columns"] == names
    assert [picture["epoch"] for picture in record["pictures"]] == [0, 1, 2, 3] * 2
    with Image.open(run.output_dir / "loss.png") as plot:
        assert plot.width > 400
    best = run.best_epoch
    assert best is not None
    assert (best.epoch, best.loss, best.file_epoch) == (lowest, losses[lowest], lowest)
    assert f"Validation was lowest at epoch {lowest}" in best.sentence
    assert len(trainer(root, sd15).prepare("data/datasets/me").spec.samples) == 5, "no picture of the run is trained on"

    again: dict[str, Any] = {"meta": meta | {"validationSplit": 0.0}, "outputPath": "data/loras/again"}
    more = trainer(root, sd15, epochs=1, **again).train("data/datasets/me", init_from=run.lora_path)
    with Image.open(more.output_dir / "samples.png") as sheet:
        record = json.loads(sheet.info["influencerai"])
    assert record["columns"] == ["out-final", "epoch 1"]
    assert record["pictures"][0]["lora"]["name"] == "out-final"


@pytest.mark.slow
def test_pictures_that_cannot_be_written_fail_no_run(root: Path, sd15: Path) -> None:
    events: list[Event] = []
    (root / "data/loras/test-run/loss.png").mkdir(parents=True)
    run = trainer(root, sd15, events=events, epochs=1).train("data/datasets/me")
    assert run.lora_path.is_file()
    assert any("loss.png" in event.message for event in events if isinstance(event, WarningEvent))


@pytest.mark.slow
def test_a_diverging_run_stops_and_names_the_last_good_state(root: Path, sd15: Path) -> None:
    with pytest.raises(DivergedError, match="is not a number") as caught:
        trainer(root, sd15, epochs=40, learningRate=1.0, meta={"maxGradNorm": 0, "optimizer": "Lion"}).train(
            "data/datasets/me"
        )
    failure = caught.value.failure
    assert failure is not None
    assert failure["epoch"] >= 1
    assert set(failure) == {"error", "code", "remedy", "epoch", "partialCheckpoints"}
    states = list((root / ".influencerai/runs").glob("*/state-*.safetensors"))
    assert states, "without one there is no last good state to name"
    for path in states:
        tensors = safetensors.torch.load_file(path)
        assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())


@pytest.mark.slow
def test_a_failed_run_publishes_its_last_two_epochs(root: Path, sd15: Path) -> None:
    failing = trainer(root, sd15, epochs=20, meta={"saveEveryNEpochs": 20})
    seen: list[int] = []

    def fail_in_epoch_four(event: Event) -> None:
        if isinstance(event, StepEvent):
            seen.append(event.epoch)
            if event.epoch == 4:
                raise DivergedError("The disk was pulled out.")

    failing = Trainer(failing.config, settings=failing.settings, on_event=fail_in_epoch_four)
    with pytest.raises(DivergedError) as caught:
        failing.train("data/datasets/me")
    failure = caught.value.failure
    assert failure is not None
    assert failure["epoch"] == 4
    assert failure["partialCheckpoints"] == ["test-run-epoch-2.safetensors", "test-run-epoch-3.safetensors"]
    assert json.loads(json.dumps(failure)) == failure


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"batchSize": 4}, "gradientCheckpointing"),
        ({"batchSize": 4, "meta": {"gradientCheckpointing": True}}, "batchSize to 2 and gradientAccumulation to 2"),
        ({"batchSize": 1, "resolution": 1024, "meta": {"gradientCheckpointing": True}}, "resolution to 768"),
    ],
)
def test_running_out_of_memory_names_the_smaller_setting(
    root: Path, sd15: Path, changes: dict[str, Any], remedy: str
) -> None:
    spec = make_spec(make_config(sd15, **changes), root / "data/datasets/me", settings=make_settings(root))
    with pytest.raises(OutOfMemoryError, match=remedy), memory_errors("CPU", remedy=smaller_setting(spec)):
        torch.empty(2**62, dtype=torch.uint8)


@pytest.mark.parametrize(
    "text",
    ["CUDA out of memory. Tried to allocate 2.00 GiB.", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when"],
)
def test_every_allocator_is_understood(text: str) -> None:
    with pytest.raises(OutOfMemoryError, match=text.split()[0]), memory_errors("H100", remedy="less"):
        raise RuntimeError(text)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_too_little_memory_is_not_taken_for_a_damaged_model(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(OutOfMemoryError), memory_errors("H100", remedy="less"), damage_errors(tmp_path):
        raise error


def test_other_errors_pass_through_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("CPU", remedy=""):
        raise RuntimeError("shapes differ")


@pytest.mark.slow
@pytest.mark.parametrize(("fail_at", "epoch"), [("encoding images", 0), ("loading", 0), ("training", 1)])
def test_a_failure_before_the_first_step_names_its_epoch(root: Path, sd15: Path, fail_at: str, epoch: int) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, StageEvent) and event.stage == fail_at:
            raise DivergedError("The disk was pulled out.")

    with pytest.raises(DivergedError) as caught:
        Trainer(make_config(sd15), settings=make_settings(root), on_event=fail).train("data/datasets/me")
    failure = dict(caught.value.failure or {})
    assert failure.pop("remedy")
    shown = {"error": "The disk was pulled out.", "code": "diverged", "epoch": epoch, "partialCheckpoints": []}
    assert failure == shown


@pytest.mark.campaign
def test_a_failure_after_an_epoch_is_one_of_the_next(root: Path, sd15: Path) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, CheckpointEvent):
            raise DivergedError("The disk was pulled out.")

    config = make_config(sd15, epochs=3, meta={"saveEveryNEpochs": 2})
    with pytest.raises(DivergedError) as caught:
        Trainer(config, settings=make_settings(root), on_event=fail).train("data/datasets/me")
    assert caught.value.failure is not None
    assert caught.value.failure["epoch"] == 3


@pytest.mark.slow
def test_a_finished_run_keeps_no_state(root: Path, sd15: Path) -> None:
    run = trainer(root, sd15).train("data/datasets/me")
    assert not list(run.run_dir.glob("state-*"))
    assert run.history


@pytest.mark.campaign
def test_a_run_that_died_without_a_file_gives_its_folder_back(root: Path, sd15: Path) -> None:
    stopping = Trainer(make_config(sd15), settings=make_settings(root), should_stop=stop_after(1))
    with pytest.raises(StoppedError):
        stopping.train("data/datasets/me")
    run = trainer(root, sd15, epochs=1).train("data/datasets/me")
    assert run.output_dir == root / "data/loras/test-run"
    assert any("can be resumed" in warning for warning in run.result.warnings)


def test_an_unusable_dataset_fails_before_the_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty"):
        trainer(tmp_path, tmp_path / "no-model").train("empty")


def test_a_missing_model_is_named(root: Path) -> None:
    config = LoraConfig.parse({"name": "x", "modelName": "acme/no-such-model"})
    with pytest.raises(ModelError, match="acme/no-such-model"):
        Trainer(config, settings=make_settings(root)).train("data/datasets/me")
    assert not list((root / ".influencerai").glob("runs/*"))


def test_the_dry_run_backend_writes_a_file_that_says_so(root: Path, sd15: Path) -> None:
    settings = make_settings(root)
    run = Trainer(make_config(sd15), settings=settings, backend="dry-run").train("data/datasets/me")
    assert any("nothing was trained" in warning for warning in run.result.warnings)
    tensors = safetensors.torch.load_file(run.lora_path)
    assert len(tensors) == 3
    assert all(math.isfinite(float(tensor.abs().sum())) for tensor in tensors.values())


def test_captions_without_the_trigger_word_are_reported(root: Path, sd15: Path) -> None:
    (root / "data/datasets/me/01.txt").write_text("a woman")
    preparation = trainer(root, sd15, meta={"triggerWord": "ohwx"}).prepare("data/datasets/me")
    flagged = [image.path for image in preparation.report.images if image.has_trigger is False]
    assert flagged == ["01.png"]


def dry_trainer(root: Path, model: Path, **changes: Any) -> Trainer:
    """Quick, where a test is about files and not about weights."""
    return Trainer(make_config(model, **changes), settings=make_settings(root), backend="dry-run")


def interrupt(root: Path, model: Path) -> Path:
    """The folder of a run that has stopped after its first step."""
    stopping = Trainer(make_config(model), settings=make_settings(root), should_stop=stop_after(1))
    with pytest.raises(StoppedError):
        stopping.train("data/datasets/me")
    [folder] = (root / ".influencerai/runs").iterdir()
    return folder


@pytest.mark.campaign
def test_a_run_is_resumed_by_its_own_backend_only(root: Path, sd15: Path) -> None:
    folder = interrupt(root, sd15)
    with pytest.raises(CheckpointError, match=r"the backend 'diffusers', not with 'dry-run'"):
        dry_trainer(root, sd15).train("data/datasets/me", resume=True)
    assert list(folder.glob("state-*"))
    assert not (folder / "result.json").exists()
    rehearsal = dry_trainer(root, sd15).train("data/datasets/me")
    assert rehearsal.output_dir != root / "data/loras/test-run"
    run = trainer(root, sd15).train("data/datasets/me", resume=True)
    assert (run.run_dir, run.output_dir) == (folder, root / "data/loras/test-run")


def test_an_unknown_backend_leaves_nothing_behind(root: Path, sd15: Path) -> None:
    before = sorted(root.rglob("*"))
    with pytest.raises(TrainingError, match="difusers"):
        Trainer(make_config(sd15), settings=make_settings(root), backend="difusers").train("data/datasets/me")
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("content", [b"garbage", b"[]", b"\xff\xfe", b"{}", None])
def test_a_run_folder_that_cannot_be_read_is_passed_over(content: bytes | None, root: Path, sd15: Path) -> None:
    folder = root / ".influencerai/runs/20990101-000000-old"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_bytes(b"{}")
    if content is not None:
        (folder / "output.json").write_bytes(content)
    assert dry_trainer(root, sd15).train("data/datasets/me").lora_path.is_file()


@pytest.mark.slow
def test_a_changed_output_name_is_refused(root: Path, sd15: Path) -> None:
    spec_file = interrupt(root, sd15) / "spec.json"
    document = json.loads(spec_file.read_text())
    for name, message in (("../../pwn", "cannot be the name of a file"), ("other", "outputName")):
        spec_file.write_text(json.dumps(document | {"outputName": name}))
        with pytest.raises(CheckpointError, match=message):
            trainer(root, sd15).train("data/datasets/me", resume=True)


def test_an_output_path_that_gives_no_file_name_is_refused(root: Path, sd15: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        dry_trainer(root, sd15, outputPath="data\\loras").prepare("data/datasets/me")
    assert list(caught.value.field_errors) == ["outputPath"]


def test_what_the_file_system_refuses_is_an_error_with_its_path(root: Path, sd15: Path) -> None:
    (root / "circle").symlink_to("circle")
    with pytest.raises(ExportError, match="circle"):
        dry_trainer(root, sd15, outputPath="circle").train("data/datasets/me")
    with pytest.raises(ExportError, match=r"üü.* cannot be made: File name too long"):
        dry_trainer(root, sd15, outputPath="ü" * 130 + "/me").train("data/datasets/me")
    (root / ".influencerai").rename(root / "moved")
    (root / ".influencerai").write_text("a file")
    with pytest.raises(CheckpointError, match=r"\.influencerai.*cannot be"):
        dry_trainer(root, sd15).train("data/datasets/me")


def test_a_full_disk_ends_the_history_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path, after_step=0)
    history._file.close()
    history._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
    event = ValidationEvent(step=1, epoch=1, loss=0.5)
    with pytest.raises(CheckpointError, match="No space left"):
        history.append(event)
    history.close()


@pytest.mark.parametrize("rest", [b'{"type": "st', b"[]", b'{"type": "step"}', b'{"step": "2"}', b"\xff", b"7"])
def test_the_history_ends_before_a_line_that_is_no_record(rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"type": "step", "step": 1, "loss": 0.5}\n' + rest + b'\n{"type": "step", "step": 3}\n')
    assert [record["step"] for record in read_history(path)] == [1]
    History(path, after_step=1).close()
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.campaign
def test_samples_that_cannot_be_written_are_a_warning(root: Path, sd15: Path) -> None:
    events: list[Event] = []
    (root / "data/loras/test-run").mkdir(parents=True)
    (root / "data/loras/test-run/samples").write_text("a file")
    meta = {"samplePrompts": ["ohwx woman"], "sampleEveryNEpochs": 1}
    run = trainer(root, sd15, events=events, epochs=1, meta=meta).train("data/datasets/me")
    assert run.lora_path.is_file()
    messages = [event.message for event in events if isinstance(event, WarningEvent)]
    found = [text for text in messages if "samplePrompts cannot be drawn" in text]
    assert [text.partition(":")[0] for text in found] == ["epoch 0", "epoch 1"]
    assert all("samples" in text for text in found)


def test_warnings_that_nobody_listens_to_are_pythons(root: Path, sd15: Path) -> None:
    dry_trainer(root, sd15).train("data/datasets/me", progress=False)
    with pytest.warns(UserWarning, match="delete that folder or choose another outputPath") as found:
        dry_trainer(root, sd15, learningRate=0.01).train("data/datasets/me", progress=False)
    assert {warning.filename for warning in found} == {__file__}


def test_a_configuration_may_be_a_mapping_or_a_servers_record(root: Path) -> None:
    settings = make_settings(root)
    config = LoraConfig(name="me", model_name="sd15", epochs=3)
    row = {**config.to_wire(), "id": "1", "tenantId": "t"}
    times = dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00Z")
    record = LoraConfigRecord.model_validate({**row, **times})
    for given in (config.to_wire(), {"name": "me", "model_name": "sd15", "epochs": 3}, row, record):
        found = Trainer(given, settings=settings).config
        assert (type(found), found) == (LoraConfig, config)
    with pytest.raises(ValidationError, match="banana"):
        Trainer({"name": "me", "modelName": "sd15", "banana": 2}, settings=settings)


@pytest.mark.parametrize("config", [None, "me", Path("me.yaml"), [("name", "me")]])
def test_what_is_no_configuration_is_refused(config: Any) -> None:
    with pytest.raises(ValidationError, match="config: Input should be a LoraConfig or a mapping of its fields"):
        Trainer(config)


@pytest.mark.parametrize(
    ("name", "value"), [("on_event", 3), ("should_stop", True), ("settings", {"root": "."}), ("settings", "root")]
)
def test_arguments_of_another_kind_are_refused_before_a_training(name: str, value: Any, root: Path) -> None:
    arguments = {"settings": make_settings(root)} | {name: value}
    with pytest.raises(ValidationError, match=f"{name}: Input should be"):
        Trainer(make_config("sd15"), **arguments)


@pytest.mark.parametrize("value", [None, 3, b"data", ["data"], "a\0b"])
def test_what_is_no_path_is_refused_by_name(value: Any, root: Path) -> None:
    made = Trainer(make_config("sd15"), settings=make_settings(root), on_event=lambda _: None)
    for call in (lambda: made.prepare(value), lambda: made.train(value), lambda: Run.open(value)):
        with pytest.raises(ValidationError, match=r"(dataset|path): Input should "):
            call()
    if value != ["data"]:
        with pytest.raises(ValidationError, match="path: Input should "):
            compare(value)
