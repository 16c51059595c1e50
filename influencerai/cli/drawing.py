"""What commands that draw share: the progress of the pictures, and saving one."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from influencerai import artifacts
from influencerai.errors import ValidationError

if TYPE_CHECKING:
    from PIL.Image import Image


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_LONGEST = {"JPEG": 65_500, "WEBP": 16_383}
"""Pixels that a side of a picture can have; a PNG's is as long as one likes."""


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


def largest_grid(side: int, *, rows: int, columns: int) -> tuple[int, int]:
    """Width and height in pixels that `image_grid` does not exceed for square pictures."""
    from influencerai.train.grid import FONT_SIZE, GAP, MAX_LABEL_LINES

    label = MAX_LABEL_LINES * (FONT_SIZE + 4)
    return GAP + columns * (side + GAP), GAP + rows * (label + side + 2 * GAP)


def check_picture_place(path: Path, *, width: int, height: int) -> None:
    """Refuse before anything is drawn a picture that could not be saved afterwards; makes its folder.

    Raises:
        ValidationError: the format has no pictures of `width` x `height` pixels, or the folder takes no files.
    """
    format_name = FORMATS[path.suffix.lower()]
    longest = _LONGEST.get(format_name)
    if longest and max(width, height) > longest:
        raise ValidationError(
            f"A grid of {width} x {height} pixels is too large for {format_name}, whose limit is {longest}.",
            remedy="Write a .png, or draw fewer or smaller pictures.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValidationError(
            f"{path} cannot be written: {error.strerror or error}.", remedy="Choose a folder that you may write to."
        ) from error


def save_picture(image: Image, path: Path) -> None:
    """Save in the format that the suffix names.

    Raises:
        InfluencerAIError: the file cannot be written.
    """
    data = io.BytesIO()
    image.save(data, format=FORMATS[path.suffix.lower()])
    artifacts.write_atomic(path, data.getvalue())
