"""Bars: stages of trainings on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn


def stage_progress(console: Console, *columns: ProgressColumn) -> Progress:
    """Bars for the stages of trainings, with fields `figures`; `columns` stand before what the stage is called."""
    return Progress(
        SpinnerColumn(),
        *columns,
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )
