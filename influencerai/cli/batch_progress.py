"""Progress of a batch: a live table on a terminal, lines elsewhere, JSON lines for scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from influencerai.batch.listener import BatchListener
from influencerai.batch.rows import BatchRow, RowStatus
from influencerai.cli.batch_tables import live_table, progress_of
from influencerai.cli.outcome import print_json
from influencerai.progress.text import visible
from influencerai.progress.training_progress import SECONDS_BETWEEN_LINES, Printed

STOPPING = "Stopping after this step, then saving; press Ctrl-C again to abort at once."
_LOOKS_PER_SECOND = 2
"""A table of twenty rows takes some milliseconds, which a training on the same core has less."""
_LINES_AROUND = 6
_URGENCY: dict[RowStatus, int] = {"running": 0, "stopped": 1, "failed": 2, "waiting": 3, "completed": 4}


def choose_batch_listener(rows: Sequence[BatchRow], *, as_json: bool) -> BatchListener:
    """JSON lines on standard output, or else a table or lines on standard error, whichever it can show."""
    if as_json:
        return BatchJsonLines()
    console = Console(stderr=True)
    return LiveBatch(console, rows) if console.is_terminal and not console.is_dumb_terminal else BatchLines()


class LiveBatch:
    """A row per training, drawn by a thread; where they do not fit on the screen, those that matter most."""

    def __init__(self, console: Console, rows: Sequence[BatchRow]) -> None:
        self._console = console
        self._rows = rows
        self._stopping = False
        self._live = Live(
            get_renderable=self._draw, console=console, refresh_per_second=_LOOKS_PER_SECOND, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, row: BatchRow) -> None:
        """The thread sees it by itself."""

    def say(self, text: str) -> None:
        self._console.print(escape(visible(text)), style="dim", highlight=False)

    def announce_stop(self) -> None:
        """The thread shows it: a signal handler that prints could deadlock on the console's lock."""
        self._stopping = True

    def _draw(self) -> Group:
        room = max(3, self._console.size.height - _LINES_AROUND)
        chosen = sorted(range(len(self._rows)), key=lambda index: (_URGENCY[self._rows[index].status], index))[:room]
        shown = [self._rows[index] for index in sorted(chosen)]
        ended = sum(row.has_ended for row in self._rows)
        hidden = len(self._rows) - len(shown)
        below = f"{ended} of {len(self._rows)} have ended" + (f"; {hidden} are not shown" if hidden else "")
        stopping = [Text(STOPPING, style="yellow")] if self._stopping else []
        return Group(live_table(shown), Text(below, style="dim"), *stopping)


class BatchLines(Printed):
    """A line when a training begins another stage or ends, and of its steps at most one every few seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[str, str]] = {}
        self._last: dict[str, float] = {}

    def __call__(self, row: BatchRow) -> None:
        now, state = self._clock(), (row.status, row.stage)
        is_new = self._said.get(row.name) != state
        if not is_new and now - self._last.get(row.name, now) < SECONDS_BETWEEN_LINES:
            return
        self._said[row.name], self._last[row.name] = state, now
        self.say(f"{row.name}  {progress_of(row)}")

    def say(self, text: str) -> None:
        click.echo(visible(text), err=True)


class BatchJsonLines(Printed):
    """Every change of a row as one line of JSON on standard output."""

    def __call__(self, row: BatchRow) -> None:
        print_json({"type": "training", **row.to_wire()})

    def say(self, text: str) -> None:
        print_json({"type": "warning", "message": text})
