"""A diagnosis for reading."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import markup
from rich.console import Console
from rich.table import Table

from influencerai.cli.common import standard_output
from influencerai.doctor import Diagnosis
from influencerai.progress.text import visible


def print_summary(found: Diagnosis) -> None:
    """What works, in a line each, then what is missing."""
    console = standard_output()
    versions, usable = found.versions, [model["name"] for model in found.models if model["family"]]
    rows = [
        (
            "InfluencerAI",
            f"{versions['influencerai']}, Python {versions['python']}, torch {versions['torch'] or 'missing'}",
        ),
        ("Trains on", "; ".join(_device(device) for device in found.devices[::-1]) or "nothing, without torch"),
        ("Base models", ", ".join(usable) or "none"),
        *((folder.name, f"{folder.path}, {_gib(folder.free_bytes)} free") for folder in found.folders),
    ]
    _rows(console, ((f"[bold]{name}", _safe(value)) for name, value in rows))
    _print_findings(console, found)
    console.print("Versions, settings and folders: influencerai doctor --all")


def print_diagnosis(found: Diagnosis) -> None:
    """Everything."""
    console = standard_output()
    _section(console, "Versions", ((name, version or "[red]missing") for name, version in found.versions.items()))
    _section(console, "Devices", ((device["kind"], _safe(_device(device))) for device in found.devices))
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
    _print_findings(console, found)


def _print_findings(console: Console, found: Diagnosis) -> None:
    """Warnings, limits and problems; then the one sentence that they come to."""
    for text in found.warnings:
        console.print(f"[yellow]Warning:[/] {_safe(text)}")
    for model in found.models:
        if model["fault"]:
            console.print(f"[yellow]Cannot be used:[/] {_safe(model['fault'])}", soft_wrap=True)
    for note in found.notes:
        console.print(f"[yellow]Note:[/] {_safe(note.message)} {_safe(note.remedy)}", soft_wrap=True)
    for problem in found.problems:
        console.print(f"[red]Missing:[/] {_safe(problem.message)}\n  Repair: {_safe(problem.remedy)}", soft_wrap=True)
    absent = " and ".join(alias["alias"] for alias in found.aliases if alias["path"] is None)
    if found.problems:
        console.print("[red]A training cannot run here yet.")
    elif absent:
        console.print(f"[green]Trainings of the models that are here work.[/] {absent}: not here.")
    else:
        console.print("[green]Everything that a training needs is here.")


def _device(device: dict[str, Any]) -> str:
    memory = device["memoryBytes"]
    return f"{device['name']}, {_gib(memory)}" if memory else str(device["name"])


def _section(console: Console, title: str, rows: Iterable[tuple[str, ...]]) -> None:
    listed = list(rows)
    if listed:
        console.print(f"[bold]{title}")
        _rows(console, listed)
        console.print()


def _rows(console: Console, rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _safe(text: str) -> str:
    """Text that comes from files and settings: neither markup nor a command to the terminal."""
    return markup.escape(visible(text))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
