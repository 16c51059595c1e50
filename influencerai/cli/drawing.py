"""What commands that draw share: the progress of the pictures, and saving one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from influencerai import artifacts

if TYPE_CHECKING:
    from PIL.Image import Image


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@contextmanager
def drawing_progress(text: str, *, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere one line, and with `as_json` nothing."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        if not as_json:
            click.echo(text, err=True)
        yield lambda done, total: None
        return
    with Progress(console=console) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def check_picture_name(ctx: click.Context, param: click.Parameter, path: Path) -> Path:
    """A click callback: refuse before anything is drawn what could not be saved afterwards."""
    if path.suffix.lower() not in FORMATS:
        raise click.BadParameter(f"'{path}' does not end in {', '.join(FORMATS)}.")
    return path


def save_picture(image: Image, path: Path) -> None:
    """Save in the format that the suffix names.

    Raises:
        InfluencerAIError: the file cannot be written.
    """
    data = io.BytesIO()
    image.save(data, format=FORMATS[path.suffix.lower()])
    artifacts.write_atomic(path, data.getvalue())
