"""Planning: what a spec costs and in which order it is trained. Pure functions of the spec, without torch."""

from influencerai.planning.batches import Batch, BatchPlan, Outline, PlannedStep, SampleRef
from influencerai.planning.buckets import Bucket, BucketPlan, Crop, resize_and_crop
from influencerai.planning.execution import DeviceFacts, execution_plan
from influencerai.planning.exposure import chosen_exposure, exposure_text
from influencerai.planning.findings import spec_warnings
from influencerai.planning.resources import ResourceEstimate, estimate, estimate_memory

__all__ = [
    "Batch",
    "BatchPlan",
    "Bucket",
    "BucketPlan",
    "Crop",
    "DeviceFacts",
    "Outline",
    "PlannedStep",
    "ResourceEstimate",
    "SampleRef",
    "chosen_exposure",
    "estimate",
    "estimate_memory",
    "execution_plan",
    "exposure_text",
    "resize_and_crop",
    "spec_warnings",
]
