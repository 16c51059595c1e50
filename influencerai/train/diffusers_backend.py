"""The diffusers backend: trains with torch and diffusers."""

from __future__ import annotations

from influencerai.domain import TrainingResult, TrainingSpec
from influencerai.models.device import fixed_execution, memory_errors
from influencerai.train.backend import RunContext
from influencerai.train.loop import train_lora
from influencerai.training_plan.memory import smaller_setting


class DiffusersBackend:
    """Trains on one device in each rank."""

    name = "diffusers"

    def train(self, spec: TrainingSpec, context: RunContext) -> TrainingResult:
        """Train the LoRA; see `Backend.train`."""
        remedy = smaller_setting(spec)
        with context.ranks.one_fate(), fixed_execution(spec.plan), memory_errors(spec.plan.device_name, remedy=remedy):
            return train_lora(spec, context)
