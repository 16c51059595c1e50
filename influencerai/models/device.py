"""Device: selection, determinism and out-of-memory errors."""

from __future__ import annotations

import errno
import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from influencerai.domain import ExecutionPlan
from influencerai.errors import OutOfMemoryError, TrainingError
from influencerai.training_plan import DeviceFacts, processor

_ALLOCATION_FAILED = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
_COMPUTING = ("torch", "diffusers", "transformers", "bitsandbytes", "pytorch-optimizer")

DeviceSetting = Literal["auto", "cpu", "cuda"]


def device_facts(device: DeviceSetting = "auto") -> DeviceFacts:
    """Return the facts of the device that the setting selects.

    Raises:
        TrainingError: CUDA is requested but not available.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise TrainingError(
            "There is no CUDA device here.", remedy="Use device 'cpu', or 'auto' to take what there is."
        )
    if device == "cpu" or not has_cuda:
        return DeviceFacts(kind="cpu", name=cpu_name(), has_bf16=processor.has_bf16(), build=_build())
    return DeviceFacts(
        kind="cuda",
        name=torch.cuda.get_device_name(),
        has_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        build=_build(),
    )


def check_device(device: str) -> None:
    """Refuse to be the machine without the GPU: users do not choose devices."""
    if device == "cuda" and not torch.cuda.is_available():
        raise OSError(errno.ENODEV, "This machine has no CUDA device")


def free_memory() -> None:
    """Return the memory of dropped modules to the device, for those that are loaded next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _build() -> str:
    versions = []
    for name in _COMPUTING:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    if torch.version.cuda:
        versions.append(f"CUDA {torch.version.cuda}")
    return ", ".join(versions)


def cpu_name() -> str:
    """Instruction set and model: kernels, and so the last bits, differ by both."""
    return f"{_cpu_model()} {torch.backends.cpu.get_cpu_capability()}"


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return "CPU"


@contextmanager
def fixed_execution(plan: ExecutionPlan) -> Iterator[None]:
    """Apply the plan's settings that decide the last bits: threads on a CPU, deterministic kernels on a GPU."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    modes: Any = torch.utils.deterministic
    fill = modes.fill_uninitialized_memory
    torch.set_num_threads(plan.threads)
    if plan.device == "cuda" and plan.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        # With warn_only attention would keep its kernels whose backward pass adds up in any order.
        torch.use_deterministic_algorithms(True)
        modes.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        modes.fill_uninitialized_memory = fill


@contextmanager
def memory_errors(device_name: str, *, remedy: str) -> Iterator[None]:
    """Turn an allocator's failure into an OutOfMemoryError that names the setting to reduce."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and not _ALLOCATION_FAILED.search(text):
            raise
        message = f"{device_name} has not enough memory: {text.splitlines()[0] if text else 'out of memory'}"
        raise OutOfMemoryError(message, remedy=remedy) from error
