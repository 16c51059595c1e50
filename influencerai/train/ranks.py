"""Ranks: the processes that train one job side by side, each on its share of every step's images.

They exchange two things. Words (a stop, a failure, the spec) go over a group of their own, on the CPU, which waits for
hours, since the first rank encodes, saves and samples alone. Numbers go over the group that accelerate or Ray Train
made, right after an exchange of words: a rank that has failed says so before the others begin to add up.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import check_cuda_p2p_ib_support
from torch import Tensor, nn

from influencerai.errors import TrainingError
from influencerai.models.device import DeviceSetting
from influencerai.train.causes import causes
from influencerai.training_plan.batches import PlannedStep

SUM_TIMEOUT = timedelta(minutes=30)
"""Ranks begin to add up at the same time, up to the speed of their devices."""
WORD_TIMEOUT = timedelta(hours=24)
"""For what the first rank does alone; a rank that is gone is noticed at once, by its closed connection."""

_ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_Value = TypeVar("_Value")


class Ranks:
    """The place of this process among those that train together. Without arguments it is alone, at no cost.

    Every rank must make the same calls in the same order. An error that one of them raises within `one_fate` is raised
    by whatever call the others make next.
    """

    def __init__(self, number: int = 0, count: int = 1, *, words: dist.ProcessGroup | None = None) -> None:
        self.number = number
        self.count = count
        self._words = words
        self._is_over = False

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that speaks to the outside and writes the files."""
        return self.number == 0

    def share(self, step: PlannedStep) -> PlannedStep:
        """The images of `step` that this rank trains on: within one of as many as the other ranks', perhaps none."""
        if self.count == 1:
            return step
        begin, end = (step.images * number // self.count for number in (self.number, self.number + 1))
        batches, seen = [], 0
        for batch in step.batches:
            if part := batch[max(begin - seen, 0) : max(end - seen, 0)]:
                batches.append(part)
            seen += len(batch)
        return PlannedStep(step.epoch, tuple(batches))

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
        """Replace every gradient and the scalar `loss` by the sum over the ranks, which is the same bits in all.

        A gradient that only some ranks have counts as zeros in the others; one that none has stays None.
        """
        if self.count == 1:
            return
        own = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters]
        numbers = torch.cat([tensor.reshape(-1) for tensor in (*own, loss)])
        missing = {index for index, parameter in enumerate(parameters) if parameter.grad is None}
        missing_in_all = set.intersection(*(other or set() for other in self.gather(missing or None)))
        self._add_up(numbers)
        *sums, total = numbers.split([tensor.numel() for tensor in (*own, loss)])
        for index, (parameter, part) in enumerate(zip(parameters, sums, strict=True)):
            parameter.grad = None if index in missing_in_all else part.view_as(parameter)
        loss.copy_(total[0])

    @torch.no_grad()
    def sum_(self, numbers: Tensor) -> None:
        """Replace a contiguous tensor by its sum over the ranks, which is the same bits in all."""
        if self.count > 1:
            self.wait()
            self._add_up(numbers)

    def agree(self, question: Callable[[], bool]) -> bool:
        """Whether `question` returns True in the first rank; the other ranks do not call it."""
        if self.count == 1:
            return question()
        answer = question() if self.is_first else False
        return self.gather(answer or None)[0] is True  # False travels as nothing, which is cheap

    def from_first(self, work: Callable[[], _Value]) -> _Value:
        """Call `work` in the first rank, and return its result in all."""
        if self.is_first:
            return self.broadcast(work())
        received: _Value = self.receive()
        return received

    def broadcast(self, value: _Value) -> _Value:
        """Send `value` from the first rank to the others, which call `receive`; returns it."""
        assert self.is_first
        self.gather(value)
        return value

    def receive(self) -> Any:
        """The value that the first rank broadcasts; for the other ranks."""
        assert not self.is_first
        values: list[Any] = self.gather(None)
        return values[0]

    def gather(self, value: _Value) -> list[_Value]:
        """What every rank says, by number, when all have said it.

        Raises:
            ConnectionError: a rank is gone.
            Exception: what another rank has raised within `one_fate`.
        """
        if self.count == 1:
            return [value]
        found: list[_Value] = []
        for number, (errors, said) in enumerate(self._exchange([], value)):
            if errors:
                self._is_over = True
                raise _raisable(errors, rank=number)
            found.append(said)
        return found

    def wait(self) -> None:
        """Until all ranks are here."""
        self.gather(None)

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """The other ranks enter the block when the first has left it, and find what it has written."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    @contextmanager
    def one_fate(self) -> Iterator[None]:
        """A block that all ranks leave at the same time; an error in one of them is raised in all. May be nested."""
        try:
            yield
            self.wait()
        except Exception as error:
            if self.count > 1 and not self._is_over:
                self._is_over = True
                with suppress(ConnectionError):
                    self._exchange(_portable(error), None)
            raise

    def _exchange(self, errors: list[BaseException], value: _Value) -> list[tuple[list[BaseException], _Value]]:
        """What is cheap stands first: mostly nobody has anything to say but that it is here."""
        said: list[Any] = [([], None)] * self.count
        speaks = torch.tensor(bool(errors) or value is not None, dtype=torch.int)
        with self._connected():
            dist.all_reduce(speaks, group=self._words)
            if speaks:
                dist.all_gather_object(said, (errors, value), group=self._words)
        return said

    def _add_up(self, numbers: Tensor) -> None:
        with self._connected():
            dist.all_reduce(numbers)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self._is_over = True
            raise ConnectionError("Another process of this training is gone.") from error  # the text names addresses


@contextmanager
def joined_ranks(device: DeviceSetting = "auto") -> Iterator[Ranks]:
    """This process among its ranks, for a block: those of the group that it is in, else those of the environment.

    The environment is that of torchrun and Ray Train: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Waits
    until all are there; alone where there is neither. With CUDA, the device is ACCELERATE_TORCH_DEVICE, or the one of
    the local rank among those that are visible.

    Raises:
        TrainingError: the environment speaks of several ranks, but not of where they meet.
    """
    is_on_cpu = device == "cpu" or not torch.cuda.is_available()
    was_in_a_group = dist.is_initialized()
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing and not was_in_a_group and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set.",
            remedy="Start the processes with torchrun or accelerate, or without WORLD_SIZE.",
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else accelerate chooses the threads
    if not is_on_cpu and not check_cuda_p2p_ib_support():
        os.environ |= {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}  # as `accelerate launch` does
    state = PartialState(cpu=is_on_cpu, timeout=SUM_TIMEOUT)
    words = None
    try:
        if state.device.type == "cuda" and state.device.index is not None:
            torch.cuda.set_device(state.device)
        if dist.is_initialized():
            words = dist.new_group(backend="gloo", timeout=WORD_TIMEOUT)
            yield Ranks(dist.get_rank(), dist.get_world_size(), words=words)
        else:
            yield Ranks()
    finally:
        if dist.is_initialized() and (words or not was_in_a_group):
            dist.destroy_process_group(words if was_in_a_group else None)  # so that the others notice
        PartialState._reset_state()


def _portable(error: BaseException) -> list[BaseException]:
    """The error and its causes, as another process can read them."""
    found: list[BaseException] = []
    for cause in causes(error):
        try:
            pickle.loads(pickle.dumps(cause))
            found.append(cause)
        except Exception:  # whatever the class of a stranger raises
            found.append(RuntimeError(f"{type(cause).__name__}: {cause}"))
    return found


def _raisable(errors: list[BaseException], *, rank: int) -> BaseException:
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    errors[0].add_note(f"It was raised in rank {rank}.")
    return errors[0]
