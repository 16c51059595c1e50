"""Pre-flight: checks of a job before it runs, without torch."""

from influencerai.preflight.check import Examination, examine, preflight
from influencerai.preflight.device import AssumedDevice, assumed_device, cluster_device
from influencerai.preflight.names import find_model, name_faults, noted, probe
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
    "cluster_device",
    "examine",
    "find_model",
    "name_faults",
    "noted",
    "preflight",
    "probe",
]
