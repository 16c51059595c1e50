from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from tests.cli.conftest import Invoke, json_lines

QUICK = ("--steps", "1", "--size", "64")


@pytest.fixture(scope="module")
def lora(project: Path) -> str:
    """A LoRA file in the project, from the backend that trains nothing."""
    from influencerai.train.trainer import Trainer
    from tests.training_runs import make_config, make_settings

    config = make_config("small", outputPath="data/loras/drawn")
    run = Trainer(config, settings=make_settings(project), backend="dry-run").train("data/faces")
    return str(run.lora_path.relative_to(project))


def test_a_grid_has_a_row_per_prompt(invoke: Invoke, lora: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "grid.png"
    prompts = ("--prompt", "ohwx woman", "--prompt", "a man")
    result = invoke("sample", lora, *prompts, "--count", "3", *QUICK, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (document,) = json_lines(result.stdout)
    assert document == {"type": "result", "path": str(out), "modelName": "small", "pictures": 6}
    with Image.open(out) as grid:
        assert grid.format == "PNG"
        assert grid.width > 3 * 64
        assert grid.height > 2 * 64


def test_the_default_is_grid_png_in_the_current_directory(invoke: Invoke, lora: str, project: Path) -> None:
    result = invoke("sample", lora, "--prompt", "a man", "--count", "1", *QUICK)
    assert result.exit_code == 0, result.output
    assert result.stdout == "Grid: grid.png\n"
    assert (project / "grid.png").is_file()


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
