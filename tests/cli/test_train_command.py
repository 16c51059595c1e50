from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import Result

from influencerai.files import safetensors_file
from influencerai.train.runs.run import Run
from tests.cli.conftest import Invoke, json_lines
from tests.training_runs import write_dataset

QUICK = ("--model", "small", "--resolution", "128", "--network-dim", "2", "--network-alpha", "1", "--epochs", "1")


def train(invoke: Invoke, *arguments: str | Path) -> Result:
    return invoke("train", "data/faces", *QUICK, *arguments)


@pytest.mark.slow
def test_a_training_ends_with_the_contracts_result(invoke: Invoke, project: Path) -> None:
    result = train(invoke, "--batch-size", "4", "--output-path", "data/loras/one", "--json")
    assert result.exit_code == 0, result.output
    *events, last = json_lines(result.stdout)
    assert {"type": "stage", "stage": "training", "done": 0, "total": 3} in events
    assert sum(event["type"] == "step" for event in events) == 3
    assert last["type"] == "result"
    assert last["loraPath"] == "data/loras/one/one-final.safetensors"
    assert last["checkpoints"] == ["one-final.safetensors"]
    assert last["finalLoss"] > 0
    assert last["trainingTimeMinutes"] >= 0
    assert (last["bestEpoch"], last["bestFile"]) == (None, None), "nothing was held out"
    metadata, tensors = safetensors_file.read_safetensors_header(project / last["loraPath"])
    assert (metadata["ss_network_dim"], metadata["ss_output_name"]) == ("2", "one")
    assert tensors


@pytest.mark.slow
def test_lines_say_what_happens_and_the_end_where_the_file_is(invoke: Invoke) -> None:
    result = train(invoke, "--batch-size", "4", "--output-path", "data/loras/lines")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "LoRA: data/loras/lines/lines-final.safetensors"
    assert result.stdout.splitlines()[1].startswith("Layout kohya, for ComfyUI, AUTOMATIC1111")
    assert "encoding images 3/3" in result.stderr
    assert "training 3/3" in result.stderr


def test_an_absolute_output_path_is_taken(invoke: Invoke, tmp_path: Path) -> None:
    result = train(invoke, "--backend", "dry-run", "--output-path", tmp_path / "far", "--json")
    assert result.exit_code == 0, result.output
    assert json_lines(result.stdout)[-1]["loraPath"] == str(tmp_path / "far" / "far-final.safetensors")


def test_the_dry_run_backend_writes_a_file_and_says_what_it_is(invoke: Invoke, project: Path) -> None:
    result = train(invoke, "--backend", "dry-run", "--output-path", "data/loras/dry", "--json")
    last = json_lines(result.stdout)[-1]
    assert (project / last["loraPath"]).is_file()
    assert any("nothing was trained" in text for text in last["warnings"])


def test_an_unknown_backend_is_an_error_with_the_known_ones(invoke: Invoke) -> None:
    result = train(invoke, "--backend", "magic", "--output-path", "data/loras/magic")
    assert result.exit_code == 1
    assert "There is no backend 'magic'" in result.stderr
    assert "dry-run" in result.stderr


def test_a_dry_run_shows_the_plan_and_stores_nothing(invoke: Invoke, project: Path) -> None:
    before = sorted(project.rglob("*"))
    result = train(invoke, "--dry-run", "--batch-size", "2", "--epochs", "4", "--output-path", "data/loras/never")
    assert result.exit_code == 0, result.output
    assert "3 images per epoch in 3 steps; 12 steps in 4 epochs" in result.stdout
    assert "small (sd15, epsilon)" in result.stdout
    assert "rank 2, alpha 1" in result.stdout
    assert "while training" in result.stdout
    assert sorted(project.rglob("*")) == before


def test_a_dry_run_says_which_pictures_are_left_out_as_the_training_does(invoke: Invoke, project: Path) -> None:
    write_dataset(project / "data" / "broken", count=3)
    (project / "data" / "broken" / "01.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    arguments = ("train", "data/broken", *QUICK, "--output-path", "data/loras/broken")
    dry, real = (invoke(*arguments, *more) for more in (("--dry-run",), ("--backend", "dry-run")))
    assert (dry.exit_code, real.exit_code) == (0, 0), dry.output + real.output
    (said,) = [line for line in real.stderr.splitlines() if "1 of 3 images are left out: 01.png" in line]
    assert "".join(said.split()) in "".join(dry.stdout.split())
    assert "this would train" in dry.stdout


@pytest.mark.parametrize("way", [("--dry-run",), ("--dry-run", "--json"), ("--backend", "dry-run")])
def test_strict_makes_warnings_an_error(invoke: Invoke, project: Path, way: tuple[str, ...]) -> None:
    write_dataset(project / "data" / "broken", count=3)
    (project / "data" / "broken" / "01.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    result = invoke("train", "data/broken", *QUICK, "--output-path", "data/loras/strict", "--strict", *way)
    assert result.exit_code == 1
    assert "under --strict" in result.output
    assert "1 of 3 images are left out" in result.output
    assert not (project / "data" / "loras" / "strict").exists()


@pytest.mark.slow
def test_the_end_names_its_numbers_and_the_commands_that_show_the_file(invoke: Invoke, project: Path) -> None:
    more = ("--epochs", "2", "--save-every-n-epochs", "1", "--validation-split", "0.4", "--trigger-word", "ohwx's dog")
    result = train(invoke, *more, "--output-path", "data/loras/end")
    assert result.exit_code == 0, result.output
    run = Run.open(project / "data/loras/end")
    best = run.best_epoch
    assert best is not None
    lines = result.stdout.splitlines()
    assert lines[0] == "LoRA: data/loras/end/end-final.safetensors"
    assert lines[2] == (
        f"Mean loss of the last epoch {run.result.final_loss:.4f}; validation loss {run.result.validation_loss:.4f}"
    )
    assert any(line.startswith(f"Validation was lowest at epoch {best.epoch}") for line in lines)
    first, second = (shlex.split(lines[lines.index(text) + 1]) for text in ("Try it:", "Compare all files:"))
    name = "end-final" if best.epoch == 2 else "end-epoch-1"
    assert first == ["influencerai", "sample", f"data/loras/end/{name}.safetensors", "--prompt", "ohwx's dog"]
    assert second == ["influencerai", "sample", "data/loras/end", "--prompt", "ohwx's dog"]
    assert (project / "data/loras/end/loss.png").is_file()
    assert "2 epochs of 2 images: 4 images seen in" in result.stderr
    assert "rank 2, alpha 1; AdamW" in result.stderr


def test_a_dry_run_as_json_has_spec_plan_images_and_warnings(invoke: Invoke) -> None:
    result = train(invoke, "--dry-run", "--trigger-word", "zwx", "--network-alpha", "4", "--set", "foo=1", "--json")
    (document,) = json_lines(result.stdout)
    assert document["dryRun"] is True
    assert document["spec"]["config"]["networkAlpha"] == 4
    assert document["plan"]["totalSteps"] == 3
    assert document["memoryGb"] > 0
    assert all(image["hasTrigger"] is False for image in document["dataset"]["images"])
    assert any("networkAlpha 4 exceeds networkDim 2" in text for text in document["warnings"])
    assert any("meta.foo is not an option" in text for text in document["warnings"])


def test_file_preset_options_and_assignments_meet_in_the_spec(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "me.yaml"
    file.write_text("modelName: small\nname: From File\nepochs: 7\nmeta: {seed: 7, flip: true}\n")
    result = invoke(
        "train", "data/faces", "--dry-run", "--json", "--config", file, "--preset", "fast",
        "--resolution", "128", "--seed", "5", "--set", "epochs=3", "--min-snr-gamma", "none",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    spec = json_lines(result.stdout)[0]["spec"]
    assert (spec["config"]["name"], spec["config"]["epochs"], spec["config"]["networkDim"]) == ("From File", 3, 8)
    options = spec["options"]
    assert (options["seed"], options["flip"], options["optimizer"], options["minSnrGamma"]) == (
        5,
        True,
        "AdamW8bit",
        None,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--epochs", "0"), "epochs (--epochs):"),
        (("--learning-rate", "7"), "learningRate (--learning-rate):"),
        (("--set", "learningrat=1"), "did you mean"),
        (("--set", "optimizer=Sofia"), "meta.optimizer (--optimizer):"),
        (("--optimizer", "Sofia"), "'--optimizer'"),
        (("--bucket-min", "512", "--bucket-max", "256"), "bucketMin 512 exceeds bucketMax 256"),
    ],
)
def test_values_that_cannot_be_used_exit_with_2_and_name_themselves(
    invoke: Invoke, arguments: tuple[str, ...], expected: str
) -> None:
    result = train(invoke, *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_a_missing_dataset_and_a_missing_model_exit_with_1(invoke: Invoke) -> None:
    result = invoke("train", "data/absent", "--model", "small")
    assert result.exit_code == 1
    assert "data/absent cannot be trained on" in result.stderr
    result = invoke("train", "data/faces", "--model", "someone/nothing")
    assert result.exit_code == 1
    assert "There is no base model 'someone/nothing'" in result.stderr


@pytest.mark.slow
def test_a_training_that_learned_nothing_fails(invoke: Invoke, project: Path) -> None:
    options = ("--optimizer", "Prodigy", "--learning-rate", "0.0001", "--output-path", "data/loras/nothing")
    result = train(invoke, *options)
    assert result.exit_code == 1
    assert "learns next to nothing" in result.stderr
    assert "Trained nothing: data/loras/nothing/nothing-final.safetensors" in result.stdout


def test_a_command_with_resume_may_be_repeated(invoke: Invoke) -> None:
    dry = ("--backend", "dry-run", "--output-path", "data/loras/heard-of", "--resume")
    first = train(invoke, *dry)
    assert first.exit_code == 0, first.output
    assert "no run to resume yet for this output path" in first.stderr
    second = train(invoke, *dry)
    assert second.exit_code == 0, second.output
    assert "is complete: data/loras/heard-of/heard-of-final.safetensors" in second.stderr
    assert second.stdout.splitlines()[0] == first.stdout.splitlines()[0]


@pytest.mark.parametrize("command", [("train", "", "--model", "small"), ("dataset", "check", " ")])
def test_an_empty_name_is_not_the_current_folder(invoke: Invoke, command: tuple[str, ...]) -> None:
    result = invoke(*command)
    assert result.exit_code == 2
    assert "The name of the folder is empty" in result.stderr
