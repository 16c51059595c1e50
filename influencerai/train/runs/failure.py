"""Failure: the contract's result of a failed run, with the LoRA files of its last epochs."""

from __future__ import annotations

from influencerai.domain import TrainingFailure, TrainingSpec
from influencerai.domain.problem import Problem
from influencerai.errors import InfluencerAIError
from influencerai.train.backend import RunContext
from influencerai.train.runs.exporter import epoch_files
from influencerai.train.runs.history import HISTORY_FILE, read_history
from influencerai.training_plan import TrainingPlan


def describe_failure(error: InfluencerAIError, spec: TrainingSpec, context: RunContext) -> TrainingFailure:
    """The epoch that it failed in (0: before training), and the epochs that it published."""
    history = context.run_dir / HISTORY_FILE
    steps = [record["step"] for record in read_history(history) if record["type"] == "step"]
    current = (steps[-1] if steps else 0) // TrainingPlan(spec).steps_per_epoch + 1
    return TrainingFailure.of(
        Problem.of(error),
        epoch=min(current, spec.config.epochs) if history.exists() else 0,
        partial_checkpoints=(path.name for path in epoch_files(context.output_dir, spec)),
    )
