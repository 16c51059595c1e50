"""The nouns: frozen pydantic models, camelCase on the wire, shared by library, API, client and command line."""

from influencerai.domain.event import (
    CheckpointEvent,
    Event,
    SampleEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
    WarningEvent,
)
from influencerai.domain.lora_config import LoraConfig
from influencerai.domain.training_options import TrainingOptions
from influencerai.domain.training_result import TrainingFailure, TrainingResult
from influencerai.domain.training_spec import ExecutionPlan, ModelSpec, SampleSpec, TrainingSpec

__all__ = [
    "CheckpointEvent",
    "Event",
    "ExecutionPlan",
    "LoraConfig",
    "ModelSpec",
    "SampleEvent",
    "SampleSpec",
    "StageEvent",
    "StepEvent",
    "TrainingFailure",
    "TrainingOptions",
    "TrainingResult",
    "TrainingSpec",
    "ValidationEvent",
    "WarningEvent",
]
