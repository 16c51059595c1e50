"""Entry: carries out a training request, alone or as one of several ranks, and sends the outcome."""

from __future__ import annotations

from influencerai.errors import InfluencerAIError
from influencerai.job_process.activity import Activity
from influencerai.job_process.channel import Channel
from influencerai.job_process.failures import last_message, log_error
from influencerai.job_process.messages import ProcessMessage, TrainingRequest, WorkerMessage
from influencerai.models.quiet import quiet_libraries
from influencerai.train.ranks import Ranks, joined_ranks


def take_part(request: TrainingRequest, channel: Channel) -> None:
    """Carry out `request` in the rank that it gives this process; see `run_attempt`.

    With several ranks, the environment has what `joined_ranks` reads; only rank 0 sends messages.
    """
    if request.world_size == 1:
        run_attempt(request, channel)
        return
    with joined_ranks(request.device) as ranks:
        if ranks.is_first:
            run_attempt(request, channel, ranks=ranks)
        else:
            follow_attempt(request, ranks=ranks)


def run_attempt(request: TrainingRequest, channel: Channel, *, ranks: Ranks | None = None) -> None:
    """Carry out `request`. The last message is Completed, Stopped or Failed; nothing is raised.

    The training states of the run stay until its result is safe (`discard_states`): another attempt may need them.

    Args:
        request: what to train, and where.
        channel: to the worker.
        ranks: this process as rank 0 of several; the others call `follow_attempt`.
    """
    quiet_libraries()
    ranks = ranks or Ranks()
    activity = Activity(request, channel, ranks=ranks)
    try:
        with ranks.one_fate():
            outcome: ProcessMessage = activity.run()
    except Exception as error:
        outcome = last_message(error, run=activity.resolved, view=activity.view)
    channel.send(outcome)


def follow_attempt(request: TrainingRequest, *, ranks: Ranks) -> None:
    """Train in a rank other than 0, which decides what is trained and reports how it ends; nothing is raised.

    Of the request it reads what belongs to this machine: root, folders and limits, whether models may be downloaded.
    """
    quiet_libraries()
    channel = Channel(send=lambda _: None, receive=_no_message, stop_requested=lambda: False)
    activity = Activity(request, channel, ranks=ranks)
    try:
        with ranks.one_fate():
            activity.follow()
    except InfluencerAIError:
        pass  # rank 0 has raised it too, and reports it
    except Exception as error:
        log_error(error, view=activity.view)


def _no_message() -> WorkerMessage:
    raise AssertionError("Only rank 0 talks to the worker.")
