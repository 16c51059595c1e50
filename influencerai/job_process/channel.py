"""Channel: the job process's end of the connection to its worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from influencerai.job_process.messages import ProcessMessage, WorkerMessage


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Four functions, so that an attempt runs the same in a process, in a test and under Ray Train."""

    send: Callable[[ProcessMessage], None]
    """Sends a message to the worker."""
    receive: Callable[[], WorkerMessage]
    """Blocks until the worker has sent a message; called once, after `Prepared`."""
    stop_requested: Callable[[], bool]
    """Whether the worker has sent `Stop`; called at every step and between images."""
    cancel_requested: Callable[[], bool] = lambda: False
    """Whether that `Stop` cancels the job."""
