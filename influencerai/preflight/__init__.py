"""Pre-flight: what is known of a job before it runs, found out without torch."""

from influencerai.preflight.check import preflight
from influencerai.preflight.device import AssumedDevice, assumed_device, cluster_device
from influencerai.preflight.report import BucketUse, MemoryEstimate, PlanSummary, Preflight, TimeEstimate

__all__ = [
    "AssumedDevice",
    "BucketUse",
    "MemoryEstimate",
    "PlanSummary",
    "Preflight",
    "TimeEstimate",
    "assumed_device",
    "cluster_device",
    "preflight",
]
