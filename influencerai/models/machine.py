"""The devices of this machine, as `influencerai doctor` shows them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from influencerai.models.device import cpu_name
from influencerai.training_plan.memory import physical_memory_bytes


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device that can train."""

    kind: str
    name: str
    memory_bytes: int


def list_devices() -> list[Device]:
    """The CPU, then every CUDA device that torch can use."""
    devices = [Device(kind="cpu", name=cpu_name(), memory_bytes=physical_memory_bytes())]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(Device(kind="cuda", name=properties.name, memory_bytes=properties.total_memory))
    return devices
