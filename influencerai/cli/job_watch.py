"""Watching jobs: one by its events, all active ones by polling."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from influencerai.cli.job_tables import event_line, job_table, progress_of, status_of, waiting_of
from influencerai.cli.outcome import print_json, print_result
from influencerai.domain.job import TERMINAL, Job
from influencerai.domain.job_log import JobEvent
from influencerai.errors import NotFoundError, StoreError, TooManyError, TrainingError, UnreachableError
from influencerai.progress.surfaces import Terminal
from influencerai.progress.text import visible
from influencerai.progress.training_progress import SECONDS_BETWEEN_LINES
from influencerai.progress.view import LiveView

if TYPE_CHECKING:
    from influencerai.client import InfluencerAIClient

_MOST_SHOWN = 100
_PATIENCE_SECONDS = 600.0


def watch_one(client: InfluencerAIClient, id: str, *, as_json: bool) -> None:
    """Show a job's events until it has ended.

    Raises:
        TrainingError: it failed.
    """
    if as_json:
        job = client.jobs.wait_for_completion(id, on_progress=lambda event: print_json(event.to_wire()))
        print_result({"job": job.to_wire()})
        return
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        with LiveView("job", surface=Terminal(console)) as view:
            job = client.jobs.wait_for_completion(id, on_progress=view)
    else:
        job = client.jobs.wait_for_completion(id, on_progress=JobLines())
    path = (job.result or {}).get("loraPath")
    click.echo(visible(f"Job {job.id} is completed" + (f": {path}" if path else ".")))


def watch_active(client: InfluencerAIClient, *, as_json: bool, pause: float) -> None:
    """Show pending and running jobs until there are none.

    Raises:
        TrainingError: some that were shown have failed.
    """
    known: dict[str, Job] = {}
    said: dict[str, str] = {}
    console = Console()
    is_live = not as_json and console.is_terminal and not console.is_dumb_terminal
    with Live(console=console, auto_refresh=False, transient=True) if is_live else _Nothing() as live:
        while active := _look(client, known, pause=pause):
            if is_live:
                hidden = len(active) - _MOST_SHOWN
                more = Text(f"and {hidden} more") if hidden > 0 else Text("")
                live.update(Group(job_table(active[:_MOST_SHOWN]), more), refresh=True)
            else:
                _say(known.values(), said, as_json=as_json)
            time.sleep(pause)
    if not is_live:
        _say(known.values(), said, as_json=as_json)
    failed = [job for job in known.values() if job.status == "failed"]
    ended = [job for job in known.values() if job.status in TERMINAL]
    if is_live and ended:
        console.print(job_table(ended))
    if as_json and not failed:
        print_result({"completed": [job.id for job in ended]})
    if failed:
        raise TrainingError(f"Of {len(known)} jobs {len(failed)} failed: {', '.join(job.id for job in failed)}.")
    if not as_json:
        click.echo("No job is active." if not known else "All have ended.", err=True)


class JobLines:
    """A line for each event, but of progress at most one every few seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = -SECONDS_BETWEEN_LINES

    def __call__(self, event: JobEvent) -> None:
        if event.type == "progress":
            if self._clock() - self._last < SECONDS_BETWEEN_LINES:
                return
            self._last = self._clock()
        click.echo(event_line(event), err=True)


class _Nothing:
    """Stands in for a live table without a terminal."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()


def _look(client: InfluencerAIClient, known: dict[str, Job], *, pause: float) -> list[Job]:
    """The active jobs, running ones first; `known` gets them, and how those that were active have ended.

    Waits for a server that does not answer for a while.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            active = [*client.jobs.list(status="running"), *client.jobs.list(status="pending")]
            found = {job.id: job for job in active}
            for id in [id for id, job in known.items() if job.status not in TERMINAL and id not in found]:
                try:
                    found[id] = client.jobs.get(id)
                except NotFoundError:
                    known.pop(id)
        except (UnreachableError, StoreError, TooManyError):
            if not known or time.monotonic() > deadline:
                raise
            time.sleep(pause)
        else:
            known.update(found)
            return [job for job in found.values() if job.status not in TERMINAL]


def _say(jobs: Any, said: dict[str, str], *, as_json: bool) -> None:
    """A line for each job whose text has changed."""
    for job in jobs:
        text = "  ".join(part for part in (status_of(job), progress_of(job), waiting_of(job)) if part)
        if said.get(job.id) == text:
            continue
        said[job.id] = text
        if as_json:
            print_json({"type": "job", "job": job.to_wire()})
        else:
            click.echo(visible(f"{job.id}  {text}"))
