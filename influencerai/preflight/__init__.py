"""Pre-flight: what is known of a job before it runs, found out without torch."""

from influencerai.preflight.check import Examination, examine, preflight
from influencerai.preflight.device import AssumedDevice, assumed_device, cluster_device
from influencerai.preflight.names import check_writable, name_faults
from influencerai.preflight.report import BucketUse, MemoryEstimate, PlanSummary, Preflight, TimeEstimate

__all__ = [
    "AssumedDevice",
    "BucketUse",
    "Examination",
    "MemoryEstimate",
    "PlanSummary",
    "Preflight",
    "TimeEstimate",
    "assumed_device",
    "check_writable",
    "cluster_device",
    "examine",
    "name_faults",
    "preflight",
]
