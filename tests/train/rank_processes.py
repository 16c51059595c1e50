"""Ranks of tests: processes of their own that meet over gloo, forked from one that has imported the trainer."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from influencerai.train.ranks import joined_ranks

_SECONDS = 120.0
_PRELOAD = ["influencerai.job_process.entry", "influencerai.train.diffusers_backend", "tests.train.rank_work"]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a rank has ended."""

    code: int | None
    value: Any
    """What its work has returned, or the error that it has raised as text; None where it was killed."""
    ended_at: float


def run_ranks(
    work: Callable[..., Any],
    *arguments: object,
    count: int = 2,
    has_environment: bool = True,
    meeting: Path | None = None,
) -> list[Ending]:
    """Call `work(ranks, *arguments)` in `count` processes at once; how they ended, by number.

    `work` and its arguments are pickled. They meet by their environment, or have made their group in the file
    `meeting` before. A rank that does not end in two minutes is a failure.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    environments = [
        environment | {"RANK": str(number), "LOCAL_RANK": str(number)} if has_environment else {}
        for number in range(count)
    ]
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    ranks = [
        context.Process(target=_run, args=(number, count, environments[number], meeting, writer, work, arguments))
        for number, (_, writer) in enumerate(pipes)
    ]
    try:
        for rank, (_, writer) in zip(ranks, pipes, strict=True):
            rank.start()
            writer.close()
        ends: dict[int, tuple[float, Any]] = {}
        limit = time.monotonic() + _SECONDS
        while len(ends) < count and time.monotonic() < limit:
            for number, (reader, _) in enumerate(pipes):
                if number not in ends and reader.poll(0.02):
                    ends[number] = (time.monotonic(), _received(reader))
        for rank in ranks:
            rank.join(max(limit - time.monotonic(), 0))
        assert len(ends) == count, f"of {count} ranks only {sorted(ends)} have ended"
        return [
            Ending(code=rank.exitcode, ended_at=ends[number][0], value=ends[number][1])
            for number, rank in enumerate(ranks)
        ]
    finally:
        for rank in ranks:
            if rank.is_alive():
                rank.kill()
                rank.join()


def values(endings: list[Ending]) -> list[Any]:
    """What the ranks have returned, which must all have ended well."""
    assert [ending.code for ending in endings] == [0] * len(endings), endings
    return [ending.value for ending in endings]


def _run(
    number: int,
    count: int,
    environment: dict[str, str],
    meeting: Path | None,
    writer: Connection,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ |= environment | {"GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    try:
        if meeting:
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=count)
        with joined_ranks("cpu") as ranks:
            value = work(ranks, *arguments)
    except Exception as error:
        writer.send_bytes(pickle.dumps(f"{type(error).__name__}: {error}"))
        raise
    writer.send_bytes(pickle.dumps(value))  # tensors too as they are: `send` would share them with a dead process


def _received(reader: Connection) -> Any:
    try:
        return pickle.loads(reader.recv_bytes())
    except EOFError:
        return None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
