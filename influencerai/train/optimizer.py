"""Optimizers and schedules by their contract names, all from kept libraries; and their state as tensors and JSON."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from influencerai.domain import TrainingOptions
from influencerai.domain.training_options import Optimizer as OptimizerName
from influencerai.errors import CheckpointError, TrainingError
from influencerai.training_plan.execution import OPTIMIZER_MODULES

ParameterGroup = dict[str, Any]


def make_optimizer(options: TrainingOptions, groups: Sequence[ParameterGroup]) -> Optimizer:
    """The optimizer that `options` names over groups with `params` and `lr` of their own."""
    return _OPTIMIZERS[options.optimizer](list(groups), options.weight_decay)


def usable_optimizer(name: OptimizerName) -> tuple[OptimizerName, list[str]]:
    """`name` where its library works on this machine, else what it falls back to, with a warning.

    Only AdamW8bit has a stand-in that takes the same learning rate.

    Raises:
        TrainingError: the optimizer's library is not usable and nothing stands in for it.
    """
    try:
        if name in OPTIMIZER_MODULES:
            importlib.import_module(OPTIMIZER_MODULES[name])
    except (ImportError, OSError, RuntimeError) as error:
        if name == "AdamW8bit":
            return "AdamW", [f"AdamW8bit cannot run here ({error}): the run uses AdamW, which needs more memory."]
        raise TrainingError(
            f"The optimizer {name} cannot run here: {error}.", remedy="Install pytorch-optimizer, or use AdamW."
        ) from error
    return name, []


def make_schedule(options: TrainingOptions, optimizer: Optimizer, *, warmup_steps: int, total_steps: int) -> LambdaLR:
    """The learning rate as a closed function of the step.

    A schedule-free optimizer (arXiv:2405.15682) has its own averaging and takes a constant rate.
    """
    name: str = options.lr_scheduler
    if is_schedule_free(optimizer):
        name = "constant"
    if name == "constant" and warmup_steps:
        name = "constant_with_warmup"
    schedule: LambdaLR = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=total_steps,
        num_cycles=options.lr_cycles,
    )
    return schedule


def is_schedule_free(optimizer: Optimizer) -> bool:
    """Whether the trained weights must be asked for (`eval()`) before they are used."""
    return "train_mode" in optimizer.param_groups[0]


def export_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's whole state as flat named tensors and a JSON document."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        for name, value in optimizer.state.get(parameter, {}).items():
            _flatten(f"state.{index}.{name}", value, tensors, scalars)
    for index, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            if name != "params":
                _flatten(f"group.{index}.{name}", value, tensors, scalars)
    return tensors, scalars


def import_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    """Put an exported state back, bit for bit.

    The state is set directly: `load_state_dict` casts floating-point state to the parameter's dtype.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in {**tensors, **scalars}.items():
        kind, index, name = key.split(".", 2)
        if kind == "state":
            if int(index) >= len(parameters):
                raise CheckpointError("The optimizer's state holds more parameters than the adapter has.")
            parameter = parameters[int(index)]
            if isinstance(value, Tensor) and (name != "step" or optimizer.defaults.get("fused")):
                value = value.to(parameter.device)
            optimizer.state[parameter][name] = value
        else:
            current = optimizer.param_groups[int(index)].get(name)
            optimizer.param_groups[int(index)][name] = tuple(value) if isinstance(current, tuple) else value


def export_schedule(schedule: LambdaLR) -> dict[str, Any]:
    """Where the schedule is, as a JSON document; its shape is made anew from the options."""
    state = schedule.state_dict()
    return {name: state[name] for name in ("last_epoch", "_step_count", "_last_lr")}


def import_schedule(schedule: LambdaLR, state: Mapping[str, Any]) -> None:
    """Put an exported schedule back."""
    schedule.load_state_dict({**state, "lr_lambdas": [None] * len(schedule.lr_lambdas)})


def place_schedule(schedule: LambdaLR, optimizer: Optimizer, *, step: int) -> None:
    """Set the rate of optimizer step `step` by the schedule's own shape, which other epochs may have changed."""
    schedule.last_epoch = step
    rates = [base * shape(step) for base, shape in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def _flatten(key: str, value: Any, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    if isinstance(value, Tensor):
        tensors[key] = value.detach().to("cpu", copy=True)
    elif value is None or isinstance(value, bool | int | float | str | list | tuple):
        scalars[key] = value
    else:
        raise CheckpointError(f"The optimizer keeps '{key}' as {type(value).__name__}, which no state file can hold.")


def _adamw(groups: list[ParameterGroup], weight_decay: float) -> Optimizer:
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def _adamw_8bit(groups: list[ParameterGroup], weight_decay: float) -> Optimizer:
    import bitsandbytes.optim

    optimizers: Any = bitsandbytes.optim
    optimizer: Optimizer = optimizers.AdamW8bit(groups, weight_decay=weight_decay)
    return optimizer


def _adafactor(groups: list[ParameterGroup], weight_decay: float) -> Optimizer:
    return torch.optim.Adafactor(groups, weight_decay=weight_decay)


def _prodigy(groups: list[ParameterGroup], weight_decay: float) -> Optimizer:
    import pytorch_optimizer

    optimizer: Optimizer = pytorch_optimizer.Prodigy(
        groups, weight_decay=weight_decay, safeguard_warmup=True, bias_correction=True
    )
    return optimizer


def _lion(groups: list[ParameterGroup], weight_decay: float) -> Optimizer:
    import pytorch_optimizer

    optimizer: Optimizer = pytorch_optimizer.Lion(groups, weight_decay=weight_decay)
    return optimizer


def _schedule_free_adamw(groups: list[ParameterGroup], weight_decay: float) -> Optimizer:
    import pytorch_optimizer

    optimizer: Optimizer = pytorch_optimizer.ScheduleFreeAdamW(groups, weight_decay=weight_decay)
    return optimizer


_OPTIMIZERS: dict[str, Callable[[list[ParameterGroup], float], Optimizer]] = {
    "AdamW": _adamw,
    "AdamW8bit": _adamw_8bit,
    "Adafactor": _adafactor,
    "Prodigy": _prodigy,
    "Lion": _lion,
    "ScheduleFreeAdamW": _schedule_free_adamw,
}
