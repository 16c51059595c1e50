"""Single-threaded processes that train one model together, each on its part of every batch.

They meet twice a step. Threads inside one process meet at every operation, which on a machine with other work halves
the speed.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn


def run_team(work: Callable[..., None], *arguments: object, size: int = 2) -> None:
    """Call `work(*arguments)` in `size` processes and wait for all; an error in one ends them all."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_member, args=(size, Path(folder) / "meeting", work, arguments), nprocs=size)


def rank() -> int:
    """The number of this process, 0 outside of a team."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are, 1 outside of a team."""
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the team, in one exchange."""
    if size() == 1:
        return
    together = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(together)
    for tensor, part in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Gradients of the mean loss over the whole batch, from those of the members' equal parts."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad.div_(size()))
    add_up(gradients)


def _member(
    number: int, team_size: int, meeting: Path, work: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=team_size)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()
