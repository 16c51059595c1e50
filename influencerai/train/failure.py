"""What a failed run leaves: the contract's failed result, with the last epochs as LoRA files."""

from __future__ import annotations

from influencerai.domain import TrainingFailure, TrainingSpec
from influencerai.errors import InfluencerAIError
from influencerai.planning import BatchPlan
from influencerai.train.backend import RunContext
from influencerai.train.exporter import Exporter
from influencerai.train.family import load_family
from influencerai.train.history import read_history
from influencerai.train.recorder import HISTORY_FILE


def describe_failure(error: InfluencerAIError, spec: TrainingSpec, context: RunContext) -> TrainingFailure:
    """Where the run was and which epochs it published."""
    steps = [record for record in read_history(context.run_dir / HISTORY_FILE) if record["type"] == "step"]
    exporter = Exporter(spec, BatchPlan(spec), context, family=load_family(spec.model.family))
    return TrainingFailure(
        error=str(error),
        epoch=steps[-1]["epoch"] if steps else 0,
        partial_checkpoints=tuple(exporter.epoch_file_names()),
    )
