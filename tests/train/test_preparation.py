"""What is noticed before anything is trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from influencerai.errors import TrainingError
from influencerai.train.preparation import prepare
from tests.small_models import small_sd15
from tests.training_runs import make_config, make_settings, write_dataset


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("model") / "sd15")


def warnings_of(root: Path, model: Path, **changes: Any) -> str:
    dataset = write_dataset(root / "dataset")
    return "\n".join(prepare(make_config(model, **changes), dataset, settings=make_settings(root)).warnings)


def test_a_fitting_run_is_not_warned_about(sd15: Path, tmp_path: Path) -> None:
    assert warnings_of(tmp_path, sd15, meta={"imagesSeen": 1500}) == ""


@pytest.mark.parametrize("resolution", [320, 1024])
def test_a_resolution_that_the_model_does_not_draw(sd15: Path, tmp_path: Path, resolution: int) -> None:
    text = warnings_of(tmp_path, sd15, resolution=resolution)
    assert f"draws 128 pixels a side: resolution {resolution}" in text


def test_captions_that_are_cut_are_named(sd15: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    (dataset / "01.txt").write_text("ohwx woman, " + "red hat, " * 40)
    preparation = prepare(make_config(sd15), dataset, settings=make_settings(tmp_path))
    assert "Captions beyond 75 tokens are cut there: 01.png." in preparation.warnings


def test_pictures_that_are_left_out_are_named(sd15: Path, tmp_path: Path) -> None:
    (write_dataset(tmp_path / "dataset") / "broken.png").write_bytes(b"")
    expected = "images are left out: broken.png (The file is empty. Copy or download it again)."
    assert expected in warnings_of(tmp_path, sd15)


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"zeroTerminalSnr": True}, "set predictionType v_prediction"),
        ({"optimizer": "Prodigy", "textEncoderLearningRate": 0.5}, "textEncoderLearningRate has no effect"),
        ({"optimizer": "ScheduleFreeAdamW", "lrScheduler": "cosine"}, "the rate is constant"),
        ({"optimizer": "ScheduleFreeAdamW", "lrScheduler": "constant", "ema": True}, "ema is off"),
        ({"precision": "fp16"}, "fp16 cannot be trained on a CPU"),
    ],
)
def test_options_that_do_not_go_together(sd15: Path, tmp_path: Path, meta: dict[str, Any], text: str) -> None:
    assert text in warnings_of(tmp_path, sd15, meta=meta)


def test_an_8_bit_optimizer_falls_back_with_a_warning(
    sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    config = make_config(sd15, meta={"optimizer": "AdamW8bit"})
    preparation = prepare(config, write_dataset(tmp_path / "dataset"), settings=make_settings(tmp_path))
    assert preparation.spec.options.optimizer == "AdamW"
    assert any("AdamW8bit cannot run here" in warning for warning in preparation.warnings)


def test_an_optimizer_without_a_stand_in_is_refused(
    sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(TrainingError, match="Prodigy cannot run here"):
        warnings_of(tmp_path, sd15, meta={"optimizer": "Prodigy"})
