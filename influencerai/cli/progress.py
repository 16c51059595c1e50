"""Progress of a training: JSON lines for scripts, else what the terminal can show."""

from __future__ import annotations

from rich.console import Console

from influencerai.cli.outcome import print_json
from influencerai.domain import Event
from influencerai.progress.training_progress import Bars, Lines, Listener, Printed


def choose_listener(*, as_json: bool) -> Listener:
    """JSON lines on standard output, or else bars or lines on standard error, whichever it can show."""
    if as_json:
        return JsonLines()
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines()


class JsonLines(Printed):
    """Every event as one line of JSON on standard output."""

    def __call__(self, event: Event) -> None:
        print_json(event.to_wire())
