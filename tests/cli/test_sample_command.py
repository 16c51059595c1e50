from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from influencerai.cli.lora_sources import choose_loras
from influencerai.train.trainer import Trainer
from tests.cli.conftest import Invoke, json_lines
from tests.training_runs import make_config, make_settings

QUICK = ("--steps", "1", "--size", "64")


@pytest.fixture(scope="module")
def lora(project: Path) -> str:
    """A LoRA file in the project, from the backend that trains nothing."""
    config = make_config("small", outputPath="data/loras/drawn")
    run = Trainer(config, settings=make_settings(project), backend="dry-run").train("data/faces")
    return str(run.lora_path.relative_to(project))


@pytest.mark.slow
def test_a_grid_has_a_section_per_prompt_and_the_base_model_first(invoke: Invoke, lora: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "grid.png"
    prompts = ("--prompt", "ohwx woman", "--prompt", "a man")
    result = invoke("sample", lora, *prompts, "--count", "3", *QUICK, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (document,) = json_lines(result.stdout)
    assert document == {
        "type": "result",
        "path": str(out),
        "modelName": "small",
        "pictures": 12,
        "columns": ["base model", "drawn-final"],
        "separate": [],
    }
    with Image.open(out) as grid:
        assert grid.format == "PNG"
        assert grid.width > 2 * 64
        assert grid.height > 6 * 64
        record = json.loads(grid.info["influencerai"])
    assert [picture["seed"] for picture in record["pictures"]] == [0, 0, 1, 1, 2, 2] * 2
    assert [picture.get("lora", {}).get("name") for picture in record["pictures"]] == [None, "drawn-final"] * 6


@pytest.mark.slow
def test_the_default_is_a_free_name_in_the_current_directory(invoke: Invoke, lora: str, project: Path) -> None:
    for name in ("grid.png", "grid-2.png"):
        result = invoke("sample", lora, "--prompt", "a man", "--count", "1", "--no-base", *QUICK)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"Grid: {name}\n"
        assert (project / name).is_file()


def test_a_file_is_overwritten_only_when_asked_for(invoke: Invoke, lora: str, tmp_path: Path) -> None:
    out = tmp_path / "mine.png"
    out.write_bytes(b"mine")
    arguments = ("sample", lora, "--prompt", "a man", "--count", "1", "--no-base", *QUICK, "--out", out)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "mine.png exists already." in " ".join(result.stderr.split())
    assert "--overwrite" in result.stderr
    assert out.read_bytes() == b"mine"
    assert invoke(*arguments, "--overwrite").exit_code == 0
    with Image.open(out) as grid:
        assert grid.format == "PNG"


@pytest.fixture(scope="module")
def trained(project: Path) -> str:
    """The output folder of a run with files of the epochs 1 to 3, relative to the project."""
    config = make_config(
        "small", epochs=3, learningRate=0.05, outputPath="data/loras/epochs", meta={"saveEveryNEpochs": 1}
    )
    run = Trainer(config, settings=make_settings(project)).train("data/faces")
    return str(run.output_dir.relative_to(project))


@pytest.mark.slow
def test_a_runs_checkpoints_are_columns_and_strengths_are_rows(invoke: Invoke, trained: str, tmp_path: Path) -> None:
    result = invoke(
        "sample", trained, "--checkpoints", "1,3", "--strength", "0", "--strength", "1", "--prompt", "ohwx woman",
        "--count", "2", *QUICK, "--out", tmp_path / "all.png", "--separate", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (document,) = json_lines(result.stdout)
    assert document["columns"] == ["base model", "epoch 1", "epoch 3"]
    assert document["pictures"] == len(document["separate"]) == (1 + 2 * 2) * 2
    drawn = {}
    for name in document["separate"]:
        with Image.open(name) as image:
            record = json.loads(image.info["influencerai"])
            lora = record.get("lora") or {"name": "base", "strength": 0}
            drawn[lora["name"], lora["strength"], record["seed"]] = np.asarray(image, dtype=float)
            assert image.info["parameters"].startswith("ohwx woman")
    assert np.array_equal(drawn["base", 0, 0], drawn["epochs-epoch-1", 0, 0]), "one noise per seed in all columns"
    assert np.array_equal(drawn["base", 0, 1], drawn["epochs-final", 0, 1])
    assert np.abs(drawn["base", 0, 0] - drawn["epochs-final", 1, 0]).mean() > 1
    assert np.abs(drawn["base", 0, 0] - drawn["base", 0, 1]).mean() > 1
    with Image.open(tmp_path / "all.png") as grid:
        pictures = json.loads(grid.info["influencerai"])["pictures"]
        assert grid.info["parameters"] == "ohwx woman\n" + grid.info["parameters"].partition("\n")[2]
    assert [picture["seed"] for picture in pictures] == [0] * 6 + [1] * 6
    assert [(picture.get("lora") or {}).get("strength") for picture in pictures[:6]] == [None, 0, 0, None, 1, 1]


@pytest.mark.parametrize(
    ("checkpoints", "columns"),
    [("all", ["epoch 1", "epoch 2", "epoch 3"]), ("last", ["epochs-final"]), ("3,1", ["epoch 3", "epoch 1"])],
)
def test_checkpoints_are_chosen_by_their_epochs(
    project: Path, trained: str, checkpoints: str, columns: list[str]
) -> None:
    found = choose_loras([trained], root=project, checkpoints=checkpoints, faults=[])
    assert [source.label for source in found] == columns


def test_the_record_of_a_run_stands_for_its_output_folder(project: Path, trained: str) -> None:
    (record,) = (path.parent for path in (project / ".influencerai" / "runs").glob("*-epochs-*/result.json"))
    (found,) = choose_loras([str(record)], root=project, checkpoints="2", faults=[])
    assert found.path == project / trained / "epochs-epoch-2.safetensors"


def test_files_of_several_folders_go_by_their_names(project: Path, trained: str, lora: str) -> None:
    copy = project / "copy" / "drawn-final.safetensors"
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes((project / lora).read_bytes())
    found = choose_loras([lora, "copy/drawn-final.safetensors", trained], root=project, checkpoints="2", faults=[])
    assert [source.label for source in found] == ["drawn/drawn-final", "copy/drawn-final", "epochs-epoch-2"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("FOLDER", "--checkpoints", "7"), 1, "There are files of the epochs 1, 2, 3."),
        (("FOLDER", "--checkpoints", "first"), 2, "neither all, last nor epochs such as 1,5,10"),
        (("FILE", "--checkpoints", "1"), 2, "--checkpoints goes with the folder of a run."),
        (("FOLDER", "--strength", "a lot"), 2, "is no list of numbers such as 0.6,0.8,1"),
        (("FOLDER", "--strength", "1,9"), 2, "leaves the range from -4 to 4"),
        (("data/faces",), 1, "holds no LoRA file."),
        (("data/loras/epochs/epochs-fina.safetensors",), 1, "Did you mean data/loras/epochs/epochs-final.safetensors?"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    invoke: Invoke, trained: str, lora: str, arguments: tuple[str, ...], code: int, text: str
) -> None:
    named = [{"FOLDER": trained, "FILE": lora}.get(argument, argument) for argument in arguments]
    result = invoke("sample", *named, "--prompt", "a man")
    assert result.exit_code == code
    assert text in " ".join(result.stderr.split()).replace(f"{Path.cwd()}/", "")


def test_a_jpeg_is_written_where_the_name_says_so(invoke: Invoke, lora: str, tmp_path: Path) -> None:
    out = tmp_path / "grid.JPG"
    assert invoke("sample", lora, "--prompt", "a man", "--count", "1", *QUICK, "--out", out).exit_code == 0
    with Image.open(out) as grid:
        assert grid.format == "JPEG"


def test_a_name_that_is_no_pictures_is_refused_first(invoke: Invoke) -> None:
    result = invoke("sample", "absent.safetensors", "--prompt", "a man", "--out", "grid.txt")
    assert result.exit_code == 2
    assert ".png" in result.stderr


def test_a_missing_lora_is_named(invoke: Invoke, project: Path) -> None:
    result = invoke("sample", "absent.safetensors", "--prompt", "a man")
    assert result.exit_code == 1
    assert str(project / "absent.safetensors") in result.stderr


def test_a_model_that_the_file_names_and_is_not_here_can_be_named(invoke: Invoke, lora: str, project: Path) -> None:
    models = project / "models"
    models.rename(project / "elsewhere")
    try:
        result = invoke("sample", lora, "--prompt", "a man", *QUICK)
        assert result.exit_code == 1
        assert "There is no base model 'small'" in result.stderr
        assert "--model" in result.stderr
        given = invoke(
            "sample", lora, "--prompt", "a man", "--count", "1", *QUICK, "--model", project / "elsewhere/small"
        )
        assert given.exit_code == 0, given.output
    finally:
        (project / "elsewhere").rename(models)


def test_a_prompt_is_required(invoke: Invoke, lora: str) -> None:
    result = invoke("sample", lora)
    assert result.exit_code == 2
    assert "--prompt" in result.stderr


def test_a_grid_that_its_format_cannot_hold_is_refused_before_drawing(
    invoke: Invoke, lora: str, tmp_path: Path
) -> None:
    out = tmp_path / "wide.webp"
    result = invoke("sample", lora, "--prompt", "a man", "--count", "5", "--size", "4096", "--out", out)
    assert result.exit_code != 0
    assert "too large for WEBP" in " ".join(result.stderr.split())


def test_a_folder_that_takes_no_picture_is_refused_before_drawing(invoke: Invoke, lora: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("sample", lora, "--prompt", "a man", "--steps", "1000", "--out", tmp_path / "file" / "grid.png")
    assert result.exit_code != 0
    assert "cannot be written" in " ".join(result.stderr.split())


def test_a_model_that_a_strangers_file_names_by_its_path_is_not_opened(
    invoke: Invoke, project: Path, tmp_path: Path
) -> None:
    path = tmp_path / "stranger.safetensors"
    metadata = {"ss_sd_model_name": str(project / "models/small")}
    safetensors.numpy.save_file({"lora_unet_x.alpha": np.ones(())}, path, metadata)
    result = invoke("sample", path, "--prompt", "a man", *QUICK)
    assert result.exit_code == 1
    assert "--model" in result.stderr
    assert "does not fit" not in result.stderr
