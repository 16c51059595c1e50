"""Training plan: the cost of a spec and the order of its steps. Pure functions of the spec, without torch."""

from influencerai.training_plan.batches import Batch, Outline, PlannedStep, SampleRef, TrainingPlan
from influencerai.training_plan.buckets import Bucket, BucketPlan, Crop, resize_and_crop
from influencerai.training_plan.execution import DeviceFacts, execution_plan
from influencerai.training_plan.exposure import chosen_exposure, exposure_text
from influencerai.training_plan.findings import spec_warnings
from influencerai.training_plan.resources import ResourceEstimate, estimate, estimate_memory

__all__ = [
    "Batch",
    "Bucket",
    "BucketPlan",
    "Crop",
    "DeviceFacts",
    "Outline",
    "PlannedStep",
    "ResourceEstimate",
    "SampleRef",
    "TrainingPlan",
    "chosen_exposure",
    "estimate",
    "estimate_memory",
    "execution_plan",
    "exposure_text",
    "resize_and_crop",
    "spec_warnings",
]
