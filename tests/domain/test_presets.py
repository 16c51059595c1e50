from __future__ import annotations

from typing import get_args

import pytest

from influencerai.domain import LoraConfig
from influencerai.domain.presets import PRESETS, PresetName


def test_every_name_has_a_preset_that_says_it() -> None:
    assert list(PRESETS) == list(get_args(PresetName))
    assert all(preset.name == name for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("name", "rate", "epochs", "batch_size", "dim", "alpha"),
    [
        ("conservative", 3e-5, 30, 1, 32, 16),
        ("balanced", 1e-4, 20, 2, 16, 8),
        ("fast", 5e-4, 10, 4, 8, 4),
    ],
)
def test_a_preset_makes_a_config(
    name: PresetName, rate: float, epochs: int, batch_size: int, dim: int, alpha: float
) -> None:
    config = LoraConfig.parse({"name": "me", "modelName": "sd15", **PRESETS[name].fields()})
    assert (config.learning_rate, config.epochs, config.batch_size) == (rate, epochs, batch_size)
    assert (config.network_dim, config.network_alpha) == (dim, alpha)
    assert (config.options.optimizer, config.options.lr_scheduler) == ("AdamW8bit", "cosine")
    assert config.options.min_snr_gamma == 5
    assert config.warnings == []


def test_presets_do_not_share_their_meta() -> None:
    PRESETS["fast"].fields()["meta"]["optimizer"] = "Lion"
    assert all(preset.fields()["meta"]["optimizer"] == "AdamW8bit" for preset in PRESETS.values())
