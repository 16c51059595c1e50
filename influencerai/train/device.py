"""Device: what this machine offers, and its errors in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from influencerai.domain import ExecutionPlan, LoraConfig, TrainingSpec
from influencerai.errors import OutOfMemoryError, TrainingError

DeviceSetting = Literal["auto", "cpu", "cuda"]


def execution_plan(
    config: LoraConfig, *, device: DeviceSetting = "auto", threads: int | None = None
) -> tuple[ExecutionPlan, list[str]]:
    """How this machine would execute `config`, and warnings about what it cannot do as asked.

    Raises:
        TrainingError: CUDA is asked for and there is none.
    """
    warnings: list[str] = []
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise TrainingError(
            "There is no CUDA device here.", remedy="Use device 'cpu', or 'auto' to take what there is."
        )
    kind: Literal["cpu", "cuda"] = "cuda" if has_cuda and device != "cpu" else "cpu"
    precision = config.options.precision
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    elif precision == "fp16" and kind == "cpu":
        precision = "fp32"
        warnings.append("fp16 cannot be trained on a CPU: the run uses fp32.")
    plan = ExecutionPlan(
        device=kind,
        device_name=torch.cuda.get_device_name() if kind == "cuda" else cpu_name(),
        threads=threads or len(os.sched_getaffinity(0)),
        micro_batch=config.batch_size,
        precision=precision,
        gradient_checkpointing=config.options.gradient_checkpointing,
    )
    return plan, warnings


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
    """What decides an operation's last bits, as the plan says: threads on a CPU, deterministic kernels on a GPU."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(plan.threads)
    if plan.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


@contextmanager
def device_errors(spec: TrainingSpec) -> Iterator[None]:
    """Turn an allocator's failure into an OutOfMemoryError that says which smaller setting to use."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in text:
            raise
        message = f"{spec.plan.device_name} has not enough memory: {text.splitlines()[0] if text else 'out of memory'}"
        raise OutOfMemoryError(message, remedy=_smaller_setting(spec)) from error


def _smaller_setting(spec: TrainingSpec) -> str:
    config = spec.config
    if not spec.plan.gradient_checkpointing:
        return "Set gradientCheckpointing to true: the same result with less memory and more time."
    if config.batch_size > 1:
        half = config.batch_size // 2
        steps = spec.options.gradient_accumulation * 2
        return f"Set batchSize to {half} and gradientAccumulation to {steps}: about the same training."
    if spec.options.train_text_encoder:
        return "Set trainTextEncoder to false."
    if config.resolution > 512:
        return f"Set resolution to {config.resolution * 3 // 4 // 64 * 64}."
    return "Use a device with more memory, or a smaller networkDim."
