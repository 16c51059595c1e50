"""This machine's processor, as Linux describes it: known without torch."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
_BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""Instructions that multiply matrices in bf16: Intel's and AMD's, then Arm's."""


@functools.cache
def has_bf16(info: Path = CPU_INFO) -> bool:
    """Whether the processor computes in bf16 itself. True where its features are not known, as on macOS."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    features = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return not features or all(_BF16_FEATURES & set(names) for names in features)


def model_name(info: Path = CPU_INFO) -> str:
    """The processor's name as its maker gives it, or its architecture."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine() or "CPU"
