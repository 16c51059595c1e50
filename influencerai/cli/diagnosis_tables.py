"""A diagnosis for reading."""

from __future__ import annotations

from collections.abc import Iterable

from rich import markup
from rich.console import Console
from rich.table import Table

from influencerai.cli.common import standard_output
from influencerai.cli.diagnosis import Diagnosis
from influencerai.live.text import visible


def print_diagnosis(found: Diagnosis) -> None:
    console = standard_output()
    _section(console, "Versions", ((name, version or "[red]missing") for name, version in found.versions.items()))
    devices = ((device["kind"], _safe(f"{device['name']}, {_gib(device['memoryBytes'])}")) for device in found.devices)
    _section(console, "Devices", devices)
    settings = ((item["name"], _safe(item["value"]), f"[dim]{_safe(item['origin'])}") for item in found.settings)
    _section(console, "Settings", settings)
    _section(console, "Models", ((_safe(model["name"]), _safe(model["path"])) for model in found.models))
    folders = (
        (
            folder.name,
            _safe(folder.path),
            "writable" if folder.writable else "[red]not writable",
            f"{_gib(folder.free_bytes)} free",
        )
        for folder in found.folders
    )
    _section(console, "Folders", folders)
    for text in found.warnings:
        console.print(f"[yellow]Warning:[/] {_safe(text)}")
    for problem in found.problems:
        console.print(f"[red]Missing:[/] {_safe(problem.message)}\n  Repair: {_safe(problem.remedy)}", soft_wrap=True)
    if not found.problems:
        console.print("[green]Everything that a training needs is here.")


def _section(console: Console, title: str, rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print(f"[bold]{title}")
        console.print(table)
        console.print()


def _safe(text: str) -> str:
    """Text that comes from files and settings: neither markup nor a command to the terminal."""
    return markup.escape(visible(text))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
