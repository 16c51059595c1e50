"""The device and optimizer that a job will probably use, by settings, driver files and packages: without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field

from influencerai.domain.training_options import Optimizer
from influencerai.domain.wire import WireModel
from influencerai.scheduling.placement import Node
from influencerai.training_plan import processor
from influencerai.training_plan.execution import OPTIMIZER_MODULES, DeviceFacts, DeviceKind

OptimizerCheck = Callable[[Optimizer], tuple[Optimizer, list[str]]]
"""Returns the optimizer that a job uses for a configured one, and warnings; raises TrainingError if none is usable."""
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver on Linux has a folder per GPU."""


class AssumedDevice(WireModel):
    """A device as a pre-flight takes it to be."""

    kind: DeviceKind
    name: str
    count: int = Field(default=1, description="How many of them one job may have.")
    has_bf16: bool = Field(default=True, description="Whether the device computes in bf16 itself, without emulation.")
    build: str = Field(default="assumed", description="Versions of the libraries that compute.")
    basis: str = Field(description="Where this is known from, and what of it is only assumed.")
    warnings: tuple[str, ...] = ()

    @property
    def facts(self) -> DeviceFacts:
        return DeviceFacts(kind=self.kind, name=self.name, has_bf16=self.has_bf16, build=self.build)


def assumed_device(setting: Literal["auto", "cpu", "cuda"], *, gpus: Path = NVIDIA_GPUS) -> AssumedDevice:
    """The device of a job on this machine, where `setting` is the setting `device`."""
    if setting == "cpu":
        return _cpu("The setting device is 'cpu'.")
    if names := gpu_names(gpus):
        return AssumedDevice(
            kind="cuda",
            name=names[0],
            basis="Assumed: the driver lists this GPU. That it computes in bf16, and that torch can use it, is not "
            "checked here.",
        )
    if setting == "cuda":
        return AssumedDevice(
            kind="cuda",
            name="NVIDIA GPU",
            basis="Assumed: the setting device is 'cuda'. Name and bf16 of the GPU are not known here.",
            warnings=("The setting device is 'cuda' and no NVIDIA GPU is seen on this machine: a job fails on it.",),
        )
    return _cpu("Assumed: no NVIDIA GPU is seen on this machine.")


def cluster_device(nodes: Sequence[Node]) -> AssumedDevice | None:
    """The device of a job on these nodes, which may train; None where they have no GPUs, or there are none."""
    equipped = [node for node in nodes if node.devices]
    if not equipped:
        return None
    node = max(equipped, key=lambda node: (len(node.devices), node.devices[0].memory_gb))
    return AssumedDevice(
        kind="cuda",
        name=node.devices[0].name,
        count=len(node.devices),
        basis=f"Assumed: node {node.name} of the cluster has it; a job may get another node. That it computes in bf16 "
        "is not checked here.",
    )


def assumed_optimizer(name: Optimizer) -> tuple[Optimizer, list[str]]:
    """`name`, with a warning where its package is not installed here; none where torch is not either."""
    package = OPTIMIZER_MODULES.get(name, "torch").partition(".")[0]
    if find_spec("torch") is None or find_spec(package):
        return name, []
    outcome = "uses AdamW, which needs more memory" if name == "AdamW8bit" else "fails"
    text = f"{name} needs the package {package}, which is not installed on this machine: a job without it {outcome}."
    return name, [text]


def _cpu(basis: str) -> AssumedDevice:
    """This machine's processor."""
    return AssumedDevice(kind="cpu", name="CPU", has_bf16=processor.has_bf16(), basis=basis)


def gpu_names(gpus: Path = NVIDIA_GPUS) -> list[str]:
    """Names of the GPUs that NVIDIA's driver lists."""
    names = []
    for file in sorted(gpus.glob("*/information")):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        names.append(fields.get("Model", "").strip() or "NVIDIA GPU")
    return names
