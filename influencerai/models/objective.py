"""Objective: the prediction target, timesteps and loss weights of a denoiser's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from influencerai.domain.training_options import PredictionType


class Objective(Protocol):
    """Prediction target, timesteps and loss weights. Tensors are batch first."""

    def timesteps(self, uniform: Tensor) -> Tensor:
        """Timesteps for float64 uniform draws in [0, 1), of the same shape."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents at their timesteps, of the shape of the latents."""
        ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The prediction target (such as the noise or v), of the shape of the latents."""
        ...

    def weights(self, timesteps: Tensor, *, min_snr_gamma: float | None) -> Tensor:
        """Loss weight per sample, float32 [batch]."""
        ...


class DiffusionObjective:
    """Discrete-time diffusion (DDPM, arXiv:2006.11239) predicting the noise or v (arXiv:2202.00512)."""

    def __init__(
        self,
        scheduler_config: Mapping[str, Any],
        *,
        prediction_type: PredictionType,
        zero_terminal_snr: bool,
        device: torch.device | None = None,
    ) -> None:
        scheduler: Any = DDPMScheduler
        cumulative: Tensor = scheduler.from_config(
            dict(scheduler_config), prediction_type=prediction_type, rescale_betas_zero_snr=zero_terminal_snr
        ).alphas_cumprod
        self.prediction_type = prediction_type
        cumulative = cumulative.to(device=device, dtype=torch.float32)
        self._alpha = cumulative.sqrt()
        self._sigma = (1 - cumulative).sqrt()

    def timesteps(self, uniform: Tensor) -> Tensor:
        return (uniform * len(self._alpha)).long()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        alpha, sigma = self._levels(timesteps)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        alpha, sigma = self._levels(timesteps)
        return alpha * noise - sigma * latents

    def weights(self, timesteps: Tensor, *, min_snr_gamma: float | None) -> Tensor:
        """Min-SNR weights (arXiv:2303.09556): min(snr, gamma) / snr for noise, min(snr, gamma) / (snr + 1) for v."""
        alpha, sigma = self._alpha[timesteps], self._sigma[timesteps]
        if min_snr_gamma is None:
            return torch.ones_like(alpha)
        snr = (alpha / sigma).square()
        clipped = snr.clamp(max=min_snr_gamma)
        if self.prediction_type == "v_prediction":
            return clipped / (snr + 1)
        return torch.where(snr > 0, clipped / snr, torch.ones_like(snr))

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        return self._alpha[timesteps].view(-1, 1, 1, 1), self._sigma[timesteps].view(-1, 1, 1, 1)
