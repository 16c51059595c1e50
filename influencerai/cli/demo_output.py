"""Demo output: a bar per job on a terminal, lines elsewhere, JSON lines for scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import TextColumn

from influencerai.cli.drawing import drawing_progress
from influencerai.cli.job_tables import event_line, progress_text
from influencerai.cli.outcome import print_json
from influencerai.demo.run.tenants import tenant_of
from influencerai.demo.run.view import OnEvent
from influencerai.domain.job_log import JobEvent
from influencerai.progress.bars import stage_progress
from influencerai.progress.text import short_path, visible
from influencerai.progress.training_progress import SECONDS_BETWEEN_LINES


class DemoOutput:
    """Prints JSON lines on standard output, or sentences and progress on standard error."""

    def __init__(self, characters: Sequence[str], *, as_json: bool) -> None:
        self._characters = characters
        self._as_json = as_json

    def starting(self, log: Path) -> None:
        self._say(f"Starting a server with Ray; its log is {short_path(log)}.")

    def ready(self, url: str) -> None:
        if self._as_json:
            print_json({"type": "ready", "url": url})
        tenants = " and ".join(tenant_of(name) for name in self._characters)
        self._say(f"It listens on {url} (its page: {url}/api); a job for {tenants}:")

    def training(self) -> AbstractContextManager[OnEvent]:
        return choose_demo_listener(self._characters, as_json=self._as_json)

    def stopping(self) -> None:
        self._say("Stopping the server; Ctrl-C kills it.")

    def drawing(self, text: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return drawing_progress(text, as_json=self._as_json)

    def _say(self, text: str) -> None:
        if not self._as_json:
            click.echo(text, err=True)


class DemoListener(AbstractContextManager["DemoListener"], Protocol):
    """Shows the jobs of several characters."""

    def __call__(self, character: str, event: JobEvent) -> None: ...


def choose_demo_listener(characters: Sequence[str], *, as_json: bool) -> DemoListener:
    """JSON lines on standard output, or else bars or lines on standard error, whichever it can show."""
    if as_json:
        return DemoJsonLines()
    console = Console(stderr=True)
    return DemoBars(console, characters) if console.is_terminal and not console.is_dumb_terminal else DemoLines()


class DemoBars:
    """A bar per character, for the stage that its job is in; warnings above them."""

    def __init__(self, console: Console, characters: Sequence[str]) -> None:
        self._progress = stage_progress(console, TextColumn("{task.fields[tenant]}"))
        self._tasks = {
            name: self._progress.add_task("waiting", total=None, tenant=tenant_of(name), figures="")
            for name in characters
        }

    def __enter__(self) -> DemoBars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, character: str, event: JobEvent) -> None:
        data = event.data
        match event.type:
            case "stage":
                self._show(character, str(data.get("stage")), data.get("done"), data.get("total"))
            case "progress":
                figures = escape(f"{_loss(data)}{progress_text(data)}")
                self._show(character, "training", data.get("step"), data.get("totalSteps"), figures=figures)
            case "status" if data.get("status") == "completed":
                self._progress.update(self._tasks[character], description="completed", figures="")
            case "status" if data.get("status") == "pending":
                self._show(character, "waiting", 0, None)
            case "warning":
                line = f"{tenant_of(character)}  {data.get('message')}"
                self._progress.console.print(escape(visible(line)), style="yellow", highlight=False)

    def _show(self, character: str, stage: str, done: Any, total: Any, *, figures: str = "") -> None:
        completed, whole = (number if isinstance(number, int) else 0 for number in (done, total))
        self._progress.update(
            self._tasks[character],
            description=escape(visible(stage)),
            completed=completed,
            total=whole or None,
            figures=figures,
        )


class _Printed(AbstractContextManager["DemoListener"]):
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class DemoLines(_Printed):
    """A line for each event with its tenant, but of a job's progress at most one every few seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def __call__(self, character: str, event: JobEvent) -> None:
        if event.type == "progress":
            now = self._clock()
            if now - self._last.get(character, -SECONDS_BETWEEN_LINES) < SECONDS_BETWEEN_LINES:
                return
            self._last[character] = now
        click.echo(f"{tenant_of(character)}  {event_line(event)}", err=True)


class DemoJsonLines(_Printed):
    """Every event as one line of JSON on standard output."""

    def __call__(self, character: str, event: JobEvent) -> None:
        document = {"character": character, "tenant": tenant_of(character), "event": event.to_wire()}
        print_json({"type": "event", **document})


def _loss(progress: dict[str, Any]) -> str:
    return f"loss {loss:.4f}  " if isinstance(loss := progress.get("loss"), float) else ""
