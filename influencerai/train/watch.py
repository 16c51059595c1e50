"""Watch: a training that a notebook or a program starts is shown while it goes on, and stopped by Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from warnings import warn

from influencerai.domain import Event, WarningEvent
from influencerai.errors import StoppedError
from influencerai.interruption import Interruption
from influencerai.progress.view import LiveView

STOPPING = "Stopping after this step, then saving; interrupt again to abort at once."
RESUME = "Resume it with train(..., resume=True)."


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The two ways in which a training and its caller reach each other."""

    emit: Callable[[Event], None]
    should_stop: Callable[[], bool]


@contextmanager
def watched(
    title: str,
    *,
    on_event: Callable[[Event], None] | None,
    should_stop: Callable[[], bool] | None,
    progress: bool | None,
) -> Iterator[Watch]:
    """Show a training and let Ctrl-C end it, as far as the caller does not do either.

    Args:
        title: the name of the training.
        on_event: the caller's listener.
        should_stop: the caller's question at every step; with one, signals are the caller's affair.
        progress: whether the training is shown; None: where there is no `on_event`.

    Raises:
        StoppedError: Ctrl-C ended the training, which can be resumed.
    """
    with ExitStack() as stack:
        view = stack.enter_context(LiveView(title)) if progress or (progress is None and on_event is None) else None
        listeners = [listener for listener in (on_event, view) if listener is not None] or [_issue_warning]
        if should_stop is not None or not Interruption.is_possible():
            yield Watch(emit=_to_all(listeners), should_stop=should_stop or (lambda: False))
            return
        interruption = stack.enter_context(Interruption())
        if view is not None:
            listeners.append(_announcement(view, interruption))
        try:
            yield Watch(emit=_to_all([interruption.watch, *listeners]), should_stop=lambda: interruption.requested)
        except (KeyboardInterrupt, StoppedError) as error:
            if not interruption.requested:
                raise
            raise _stopped(error, stage=interruption.stage) from None


def _to_all(listeners: list[Callable[[Event], None]]) -> Callable[[Event], None]:
    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return emit


def _announcement(view: LiveView, interruption: Interruption) -> Callable[[Event], None]:
    """Shows the request once, at the next event: inside of a signal handler a view could deadlock."""
    was_shown = False

    def announce(event: Event) -> None:
        nonlocal was_shown
        if interruption.requested and not was_shown:
            was_shown = True
            view.remark(STOPPING)

    return announce


def _stopped(error: BaseException, *, stage: str) -> StoppedError:
    if isinstance(error, StoppedError):
        return StoppedError(error.message, remedy=RESUME)
    if stage in ("", "checking"):
        return StoppedError("Stopped before the run began.", remedy="Start it again.")
    if stage == "training":
        return StoppedError("Aborted; the last saved state is kept.", remedy=RESUME)
    return StoppedError(f"Stopped while {stage}; what was done so far is kept.", remedy=RESUME)


def _issue_warning(event: Event) -> None:
    """Warnings of a run that nobody watches become Python's: a notebook shows them by itself."""
    if isinstance(event, WarningEvent):
        warn(event.message, UserWarning, stacklevel=5)
