"""What the ranks of tests do: steps of a loop, whole runs, attempts."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from influencerai.domain import StageEvent, StepEvent, TrainingSpec
from influencerai.errors import StoppedError
from influencerai.job_process.channel import Channel
from influencerai.job_process.entry import follow_attempt, run_attempt
from influencerai.job_process.messages import Go, Prepared, ProcessMessage, Progress, TrainingRequest, WorkerMessage
from influencerai.models.family import load_family
from influencerai.models.loadable_model import find_loadable_model
from influencerai.train.assembly import build, encode
from influencerai.train.backend import load_backend
from influencerai.train.ranks import Ranks
from influencerai.train.runs.training_state import TrainingState
from influencerai.training_plan import TrainingPlan
from tests.training_runs import RunPlace, stop_after


@dataclass(frozen=True)
class Trained:
    """Steps that were run, and what they left."""

    losses: list[float]
    grad_norms: list[float]
    images: list[int]
    validation: float | None
    state: TrainingState


def train_steps(
    ranks: Ranks, spec: TrainingSpec, place: RunPlace, steps: int, loss_scale: float | None = None
) -> Trained:
    """The loop of `spec` over its first steps; at fp16, from another scale of the loss than the usual one."""
    base = find_loadable_model(spec.model.name, models_dirs=())
    family, plan = load_family(base.family), TrainingPlan(spec)
    data = encode(spec, plan, place.context(), base=base, family=family)
    loop = build(spec, plan, base=base, family=family, data=data, ranks=ranks)[0]
    if loss_scale:
        state = loop.state(elapsed_seconds=0, epoch_loss=(0, 0))
        state.scalars["scaler"]["scale"] = loss_scale
        loop.restore(state)
    outcomes = [loop.run_step() for _ in range(steps)]
    return Trained(
        losses=[float(outcome.loss) for outcome in outcomes],
        grad_norms=[float(outcome.grad_norm) for outcome in outcomes],
        images=[outcome.images for outcome in outcomes],
        validation=loop.validation_loss() if plan.validation else None,
        state=loop.state(elapsed_seconds=0, epoch_loss=(0, 0)),
    )


def train_run(ranks: Ranks, spec: TrainingSpec, place: RunPlace, stops: Sequence[int] = ()) -> dict[str, Any]:
    """A run that is stopped as many steps after its begin, again and again, and then gone on with; its result."""
    backend = load_backend("diffusers")
    for steps in stops:
        should_stop = stop_after(steps if ranks.is_first else 0)  # the other ranks never ask
        with pytest.raises(StoppedError):
            backend.train(spec, replace(place.context(should_stop=should_stop), ranks=ranks))
    result = backend.train(spec, replace(place.context(), ranks=ranks))
    assert ranks.is_first or not [event for event in place.events if not isinstance(event, StageEvent)]
    return result.to_wire()


def carry_out(
    ranks: Ranks,
    orders: Sequence[TrainingRequest],
    *,
    stop_at: int | None = None,
    kill: tuple[int, int] | None = None,
    largest_file: int | None = None,
) -> list[ProcessMessage] | None:
    """An attempt by the orders of each rank; what the first one has sent.

    It is asked to stop at step `stop_at`, and writes no file beyond `largest_file` bytes. `kill`: at that step the
    process of that rank is killed.
    """
    pids = ranks.gather(os.getpid())
    if not ranks.is_first:
        follow_attempt(orders[ranks.number], ranks=ranks)
        return None
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    messages: list[ProcessMessage] = []
    steps: list[int] = []

    def send(message: ProcessMessage) -> None:
        messages.append(message)
        if isinstance(message, Progress) and isinstance(message.event, StepEvent):
            steps.append(message.event.step)
            if kill and kill[0] == message.event.step:
                os.kill(pids[kill[1]], signal.SIGKILL)

    def receive() -> WorkerMessage:
        [prepared] = [message for message in messages if isinstance(message, Prepared)]
        return Go(spec=prepared.spec)

    channel = Channel(send=send, receive=receive, stop_requested=lambda: stop_at in steps)
    run_attempt(orders[0], channel, ranks=ranks)
    return messages
