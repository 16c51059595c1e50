"""Every optimizer trains, and goes on from its exported state bit for bit."""

import json
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from influencerai.domain import TrainingOptions
from influencerai.domain.training_options import LrScheduler, Optimizer
from influencerai.train.optimizer import (
    export_schedule,
    export_state,
    import_schedule,
    import_state,
    is_schedule_free,
    make_optimizer,
    make_schedule,
)

TARGET = torch.linspace(-1, 1, 64 * 128).view(64, 128)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(64, 128, generator=generator)),
        nn.Parameter(torch.randn(4, 16, generator=generator)),
    ]


def advance(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, weights: list[nn.Parameter]
) -> Tensor:
    loss = (weights[0] - TARGET).square().mean() + weights[1].square().mean()
    loss.backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return loss.detach()


def setup(name: str, weights: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    options = TrainingOptions.model_validate({"optimizer": name})
    rate = 1.0 if name == "Prodigy" else 0.02
    groups = [{"params": weights[:1], "lr": rate}, {"params": weights[1:], "lr": rate / 2}]
    optimizer = make_optimizer(options, groups)
    return optimizer, make_schedule(options, optimizer, warmup_steps=3, total_steps=40)


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_a_restored_optimizer_continues_bit_for_bit(name: str) -> None:
    straight = parameters()
    optimizer, schedule = setup(name, straight)
    for _ in range(20):
        advance(optimizer, schedule, straight)

    first = parameters()
    optimizer, schedule = setup(name, first)
    losses = [advance(optimizer, schedule, first) for _ in range(11)]
    tensors, scalars = export_state(optimizer)
    scalars = json.loads(json.dumps(scalars))
    progress = json.loads(json.dumps(export_schedule(schedule)))

    second = [nn.Parameter(weight.detach().clone()) for weight in first]
    optimizer, schedule = setup(name, second)
    import_state(optimizer, tensors, scalars)
    import_schedule(schedule, progress)
    losses += [advance(optimizer, schedule, second) for _ in range(9)]

    assert losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))


@pytest.mark.parametrize("name", get_args(LrScheduler))
def test_schedules_warm_up_and_keep_the_ratio_of_the_groups(name: str) -> None:
    weights = parameters()
    optimizer = make_optimizer(
        TrainingOptions(), [{"params": weights[:1], "lr": 1.0}, {"params": weights[1:], "lr": 0.5}]
    )
    options = TrainingOptions.model_validate({"lrScheduler": name})
    schedule = make_schedule(options, optimizer, warmup_steps=4, total_steps=20)
    rates = []
    for _ in range(20):
        rates.append(schedule.get_last_lr())
        advance(optimizer, schedule, weights)
    assert [rate for rate, _ in rates[:5]] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert all(second == pytest.approx(first / 2) for first, second in rates)
    assert (rates[-1][0] == 1.0) == (name == "constant")


def test_only_the_schedule_free_optimizer_asks_for_its_average() -> None:
    for name in get_args(Optimizer):
        assert is_schedule_free(setup(name, parameters())[0]) == (name == "ScheduleFreeAdamW")
