"""Resources: estimates that agree with the published figures, and grow with what costs more."""

from __future__ import annotations

from typing import Any

import pytest

from influencerai.training_plan import estimate_memory

SDXL: dict[str, Any] = {"family": "sdxl", "resolution": 1024, "micro_batch": 1, "precision": "bf16", "rank": 16}


def total(**changes: Any) -> float:
    return sum(estimate_memory(**{**SDXL, **changes}).values())


def test_the_parts_of_sdxl_are_the_known_ones() -> None:
    parts = estimate_memory(**SDXL, targets="attention")
    assert parts["base model"] == pytest.approx(5.13, abs=0.01)
    assert parts["adapter, gradients and optimizer"] == pytest.approx(0.37, abs=0.01)
    assert 12 < sum(parts.values()) < 15
    assert 7 < total(gradient_checkpointing=True) < 9


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch": 2},
        {"resolution": 1536},
        {"precision": "fp32"},
        {"rank": 128},
        {"targets": "all"},
        {"optimizer": "Prodigy"},
        {"ema": True},
        {"train_text_encoder": True},
    ],
)
def test_what_costs_more_is_estimated_higher(changes: dict[str, Any]) -> None:
    assert total(**changes) > total()


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "sd15"},
        {"gradient_checkpointing": True},
        {"optimizer": "AdamW8bit"},
        {"denoiser_parameters": 8_800_000},
    ],
)
def test_what_costs_less_is_estimated_lower(changes: dict[str, Any]) -> None:
    assert total(**changes) < total()


def test_activations_grow_with_pixels_and_images() -> None:
    one = estimate_memory(**SDXL)["activations"]
    assert estimate_memory(**{**SDXL, "resolution": 512})["activations"] == pytest.approx(one / 4)
    assert estimate_memory(**{**SDXL, "micro_batch": 4})["activations"] == pytest.approx(one * 4)


def test_a_family_without_figures_gets_no_estimate() -> None:
    assert estimate_memory(**{**SDXL, "family": "flux"}) == {}
