"""Noise levels, targets and weights, against diffusers' training scheduler and the papers' formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from influencerai.basemodel.components import CONFIGS, read_config
from influencerai.domain.training_options import PredictionType
from influencerai.models.objective import DiffusionObjective

PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "v_prediction")
TIMESTEPS = torch.tensor([0, 1, 250, 500, 998, 999])


def _objective(prediction_type: PredictionType, *, zero_terminal_snr: bool = False) -> DiffusionObjective:
    return DiffusionObjective(
        read_config(CONFIGS / "sd15", "scheduler"),
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
    )


def _signal_to_noise() -> np.ndarray[Any, np.dtype[np.float64]]:
    """SNR of SD1.5's 1,000 levels, from the definition of its scaled-linear betas."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    cumulative = np.cumprod(1 - betas)
    return np.asarray(cumulative / (1 - cumulative))


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_noise_and_targets_are_those_of_diffusers(prediction_type: PredictionType, zero_terminal_snr: bool) -> None:
    reference: Any = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=zero_terminal_snr,
    )
    objective = _objective(prediction_type, zero_terminal_snr=zero_terminal_snr)
    latents, noise = torch.randn(2, 6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = reference.add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(objective.add_noise(latents, noise, TIMESTEPS), expected)
    target = noise if prediction_type == "epsilon" else reference.get_velocity(latents, noise, TIMESTEPS)
    torch.testing.assert_close(objective.target(latents, noise, TIMESTEPS), target)


def test_zero_terminal_snr_ends_in_pure_noise() -> None:
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    last = torch.tensor([999])
    assert torch.equal(_objective("v_prediction", zero_terminal_snr=True).add_noise(latents, noise, last), noise)
    assert not torch.allclose(_objective("v_prediction").add_noise(latents, noise, last), noise, atol=0.01)


def test_timesteps_cover_every_level() -> None:
    objective = _objective("epsilon")
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert torch.equal(objective.timesteps(uniform), torch.arange(1000))
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert objective.timesteps(ends).tolist() == [0, 999]


def test_min_snr_weights() -> None:
    snr = _signal_to_noise()[TIMESTEPS.numpy()]
    expected = {
        "epsilon": np.minimum(snr, 5.0) / snr,
        "v_prediction": np.minimum(snr, 5.0) / (snr + 1),
    }
    for prediction_type in PREDICTIONS:
        weights = _objective(prediction_type).weights(TIMESTEPS, min_snr_gamma=5.0)
        np.testing.assert_allclose(weights.numpy(), expected[prediction_type], rtol=1e-4)
        assert weights.dtype == torch.float32
    assert _objective("epsilon").weights(TIMESTEPS, min_snr_gamma=None).tolist() == [1.0] * 6


def test_weights_are_finite_at_zero_snr() -> None:
    """The limit for the noise is 1; for v it is 0, since min(SNR, gamma) is."""
    last = torch.tensor([999])
    assert _objective("epsilon", zero_terminal_snr=True).weights(last, min_snr_gamma=5.0).item() == 1
    assert _objective("v_prediction", zero_terminal_snr=True).weights(last, min_snr_gamma=5.0).item() == 0
