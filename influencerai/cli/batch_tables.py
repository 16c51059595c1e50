"""A batch as tables: what is wrong, what would be done, how it goes, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from influencerai.batch.rows import BatchRow, RowStatus
from influencerai.batch.trainings import Problem
from influencerai.progress.text import duration, visible

if TYPE_CHECKING:
    from influencerai.batch.check import Checked

STYLES: dict[RowStatus, str] = {
    "waiting": "dim",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "stopped": "yellow",
}


def problem_table(problems: Iterable[Problem]) -> Table:
    """Everything that is wrong, with where."""
    table = Table(box=None, pad_edge=False)
    for title in ("where", "problem"):
        table.add_column(title, overflow="fold")  # nothing of a long path is left out
    for problem in problems:
        table.add_row(escape(visible(problem.where)), escape(visible(problem.text)))
    return table


def live_table(rows: Iterable[BatchRow]) -> Table:
    """The progress of the trainings."""
    table = _table("training", "status", "epoch", "step", "loss", "left")
    for row in rows:
        moving = _is_moving(row)
        loss = row.final_loss if row.status == "completed" else row.loss
        cells = (
            f"{row.epoch}/{row.total_epochs}" if moving else "",
            f"{row.step}/{row.total_steps}" if moving else "",
            f"{loss:.4f}" if loss is not None else "",
            duration(row.seconds_left) if moving and row.seconds_left is not None else "",
        )
        _add(table, row, _status(row), *cells)
    return table


def summary_table(rows: Iterable[BatchRow]) -> Table:
    """How trainings ended."""
    table = _table("training", "status", "final loss", "time", "file or error", folding=True)
    for row in rows:
        loss = f"{row.final_loss:.4f}" if row.final_loss is not None else ""
        time = duration(60 * row.minutes) if row.minutes is not None else ""
        _add(table, row, _status(row), loss, time, row.error or row.file or "")
    return table


def progress_of(row: BatchRow) -> str:
    """A row as one line."""
    if row.status == "completed":
        loss = f"  final loss {row.final_loss:.4f}" if row.final_loss is not None else ""
        return f"{_status(row)}{loss}  {row.file or ''}".rstrip()
    parts = [_status(row)]
    if _is_moving(row):
        parts.append(f"epoch {row.epoch}/{row.total_epochs}  step {row.step}/{row.total_steps}")
        parts += [f"loss {row.loss:.4f}"] if row.loss is not None else []
        parts += [f"{duration(row.seconds_left)} left"] if row.seconds_left is not None else []
    return "  ".join(parts) + (f": {row.error}" if row.error else "")


def print_warnings(console: Console, warnings: Iterable[tuple[str, str]]) -> None:
    """(training, text) pairs, each text once with the trainings that it is about."""
    about: dict[str, list[str]] = {}
    for name, text in warnings:
        about.setdefault(text, []).append(name)
    for text, names in about.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        of = f"{names[0]}{more}: " if names[0] else ""
        console.print(f"[yellow]Warning:[/] {escape(visible(of + text))}")


def plan_table(checked: Iterable[Checked]) -> Table:
    """What would be done."""
    table = _table("training", "standing", "steps", "time", "dataset", folding=True)
    styles = {"open": "", "completed": "[green]", "failed": "[red]"}
    for item in checked:
        standing = "continues" if item.resumes and item.standing == "open" else item.standing
        steps = "" if item.steps is None else str(item.steps)
        time = "" if item.seconds is None else duration(item.seconds)
        cells = (escape(visible(cell)) for cell in (steps, time, item.training.dataset))
        table.add_row(escape(visible(item.training.name)), f"{styles[item.standing]}{standing}", *cells)
    return table


def _table(*titles: str, folding: bool = False) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles[:-1]:
        table.add_column(title, no_wrap=True)
    table.add_column(titles[-1], no_wrap=not folding, overflow="fold" if folding else "ellipsis")
    return table


def _add(table: Table, row: BatchRow, status: str, *cells: str) -> None:
    shown = f"[{STYLES[row.status]}]{escape(visible(status))}"
    table.add_row(escape(visible(row.name)), shown, *(escape(visible(cell)) for cell in cells))


def _is_moving(row: BatchRow) -> bool:
    return row.status == "running" and row.stage == "training" and row.total_steps > 0


def _status(row: BatchRow) -> str:
    if row.status == "running" or (row.status == "waiting" and row.stage):
        return row.stage or "running"
    return f"{row.status} earlier" if row.is_earlier else row.status
