"""Optimization: the weights under training and what moves them, one optimizer step at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional

from influencerai.domain import TrainingSpec
from influencerai.lora.adapter import Adapter
from influencerai.models.family import Family, TextConditioner
from influencerai.models.objective import Objective
from influencerai.models.precision import autocast
from influencerai.train.data.training_data import Batch, TrainingData
from influencerai.train.optimizer import (
    export_schedule,
    export_state,
    import_schedule,
    import_state,
    is_schedule_free,
    make_optimizer,
    make_schedule,
    place_schedule,
)
from influencerai.train.ranks import Ranks
from influencerai.train.runs.training_state import TrainingState
from influencerai.training_plan import TrainingPlan


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """One optimizer step. The scalar tensors stay on the device, since reading them would stall it."""

    step: int
    """Number of the step, from 1."""
    loss: Tensor
    grad_norm: Tensor
    learning_rate: float
    images: int
    """Images of all ranks."""
    seconds: float
    """Wall time until the step was queued on the device; on a CPU, until it was done."""


class Optimization:
    """Adapter, optimizer, schedule and averages of one run, advanced by `run_step`.

    Families and objectives supply what differs between base models. `conditioner` is the text encoder under training,
    or None where the conditioning is already encoded. Each of `ranks` has an `Optimization` of its own, and all of them
    hold the same bits after every step.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        plan: TrainingPlan,
        *,
        family: Family,
        denoiser: nn.Module,
        conditioner: TextConditioner | None,
        adapter: Adapter,
        objective: Objective,
        data: TrainingData,
        ranks: Ranks | None = None,
    ) -> None:
        self.step = 0
        self._spec = spec
        self._plan = plan
        self._family = family
        self._denoiser = denoiser
        self._conditioner = conditioner
        self._adapter = adapter
        self._objective = objective
        self._data = data
        self._ranks = ranks or Ranks()
        self._device = torch.device(spec.plan.device)
        self._parameters = list(adapter.parameters())
        self._optimizer = make_optimizer(spec.options, self._parameter_groups())
        self._schedule = make_schedule(
            spec.options, self._optimizer, warmup_steps=plan.warmup_steps, total_steps=plan.total_steps
        )
        self._ema = EMAModel(self._parameters, decay=spec.options.ema_decay, foreach=True) if self._uses_ema else None
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=spec.plan.precision == "fp16")

    def run_step(self) -> StepOutcome:
        """Forward and backward over the step's micro-batches, shared among the ranks, then one optimizer step."""
        begun = time.monotonic()
        planned = self._plan.step(self.step)
        loss = torch.zeros((), device=self._device)
        own = self._ranks.share(planned)
        for refs in own.micro_batches(self._spec.plan.micro_batch):
            batch = self._data.training_batch(self.step, refs)
            share = self._weighted_losses(batch).sum() / planned.images
            torch.autograd.backward(self._scaler.scale(share))
            loss += share.detach()
        if not own.images:
            self._scaler.scale(loss)  # the scaler allocates its scale with the first loss; `unscale_` needs it
        self._ranks.sum_gradients(self._parameters, loss)
        self._scaler.unscale_(self._optimizer)
        grad_norm = self._clip_gradients()
        learning_rate = float(self._schedule.get_last_lr()[0])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._ema:
            self._ema.step(self._parameters)
        self.step += 1
        return StepOutcome(
            step=self.step,
            loss=loss,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            images=planned.images,
            seconds=time.monotonic() - begun,
        )

    def validation_loss(self) -> float:
        """Unweighted loss on the fixed (image, timestep, noise) triples, with the weights a file would hold."""
        with torch.no_grad(), self.exported_weights():
            losses = torch.cat(
                [
                    self._losses(batch)[0]
                    if index % self._ranks.count == self._ranks.number
                    else torch.zeros(len(batch), device=self._device)
                    for index, batch in enumerate(self._data.validation_batches())
                ]
            )
            self._ranks.sum_(losses)
        return float(losses.mean())

    @contextmanager
    def exported_weights(self) -> Iterator[None]:
        """Within the block the adapter holds the weights of a LoRA file; then those of before, bit for bit."""
        tensors = self._averaged_tensors()
        with self._adapter.swapped(tensors) if tensors else nullcontext():
            yield

    def state(self, *, elapsed_seconds: float, epoch_loss: tuple[float, int]) -> TrainingState:
        """The training state after `self.step` steps; the two arguments are kept with it."""
        optimizer, optimizer_scalars = export_state(self._optimizer)
        scalars: dict[str, Any] = {
            "optimizer": optimizer_scalars,
            "schedule": export_schedule(self._schedule),
            "scaler": self._scaler.state_dict(),
            "ema_steps": self._ema.optimization_step if self._ema else None,
        }
        return TrainingState(
            spec_id=self._spec.id,
            step=self.step,
            epoch=self.step // self._plan.steps_per_epoch,
            at_epoch_end=self.step % self._plan.steps_per_epoch == 0,
            elapsed_seconds=elapsed_seconds,
            epoch_loss=epoch_loss,
            adapter=self._adapter.tensors(),
            export=self._averaged_tensors(),
            optimizer=optimizer,
            scalars=scalars,
        )

    def start_from(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Start with these weights instead of new ones, and count `step` steps as done."""
        self.step = step
        self._adapter.load_tensors(tensors)
        if self._ema:
            self._ema.shadow_params = [parameter.detach().clone() for parameter in self._parameters]
        place_schedule(self._schedule, self._optimizer, step=step)

    def restore(self, state: TrainingState) -> None:
        """Continue from a training state of the same spec."""
        self.step = state.step
        self._adapter.load_tensors(state.adapter)
        scalars = state.scalars
        import_state(self._optimizer, state.optimizer, scalars["optimizer"])
        import_schedule(self._schedule, scalars["schedule"])
        place_schedule(self._schedule, self._optimizer, step=state.step)
        if scalars["scaler"]:
            self._scaler.load_state_dict(scalars["scaler"])
        if self._ema:
            names = self._adapter.tensors().keys()
            self._ema.shadow_params = [state.export[name].to(self._device) for name in names]
            self._ema.optimization_step = scalars["ema_steps"]

    @property
    def _uses_ema(self) -> bool:
        return self._spec.options.ema and not is_schedule_free(self._optimizer)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        groups = []
        for component in self._adapter.components:
            is_denoiser = component == self._family.denoiser_component
            rate = self._spec.config.learning_rate if is_denoiser else self._spec.text_encoder_learning_rate
            groups.append({"params": list(self._adapter.parameters(component)), "lr": rate})
        return groups

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean squared error per sample, float32 [batch], and the timesteps."""
        timesteps = self._objective.timesteps(batch.timestep_draw)
        noisy = self._objective.add_noise(batch.latents, batch.noise, timesteps)
        target = self._objective.target(batch.latents, batch.noise, timesteps)
        with autocast(self._spec.plan.precision, device=self._device):
            conditioning = batch.conditioning
            if conditioning is None:
                assert self._conditioner is not None
                tokens = self._conditioner.tokenize(batch.captions)
                conditioning = self._conditioner({name: ids.to(self._device) for name, ids in tokens.items()})
            prediction = self._family.denoise(self._denoiser, noisy, timesteps, conditioning, batch.geometry)
        errors = functional.mse_loss(prediction.float(), target, reduction="none")
        return errors.flatten(1).mean(1), timesteps

    def _weighted_losses(self, batch: Batch) -> Tensor:
        losses, timesteps = self._losses(batch)
        return losses * self._objective.weights(timesteps, min_snr_gamma=self._spec.options.min_snr_gamma)

    def _clip_gradients(self) -> Tensor:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self._spec.options.max_grad_norm:
            nn.utils.clip_grads_with_norm_(self._parameters, self._spec.options.max_grad_norm, norm)
        return norm

    def _averaged_tensors(self) -> dict[str, Tensor]:
        """The averaged weights by name; empty where the adapter's own weights are exported."""
        if self._ema:
            names = self._adapter.tensors().keys()
            return {name: shadow.clone() for name, shadow in zip(names, self._ema.shadow_params, strict=True)}
        if is_schedule_free(self._optimizer):
            return self._schedule_free_weights()
        return {}

    def _schedule_free_weights(self) -> dict[str, Tensor]:
        """The averages of a schedule-free optimizer.

        `eval()` and `train()` invert each other only up to rounding, so the weights are restored from a copy.
        """
        held = {name: tensor.clone() for name, tensor in self._adapter.tensors().items()}
        optimizer: Any = self._optimizer
        optimizer.eval()
        averaged = {name: tensor.clone() for name, tensor in self._adapter.tensors().items()}
        optimizer.train()
        self._adapter.load_tensors(held)
        return averaged
