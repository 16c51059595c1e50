"""What commands that draw share: the progress of the pictures, and saving one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from influencerai.errors import InfluencerAIError, ValidationError
from influencerai.files import atomic_file
from influencerai.preflight import probe
from influencerai.progress.training_progress import Lines

if TYPE_CHECKING:
    from PIL.Image import Image

    from influencerai.generate.lora_comparison import LoraComparison


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_LONGEST = {"JPEG": 65_500, "WEBP": 16_383}
"""Pixels that a side of a picture can have; a PNG's is as long as one likes."""
_MOST_PIXELS = 178_000_000
"""Above it Pillow, and what stands on it, takes a picture for an attack."""


@contextmanager
def drawing_progress(text: str, *, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a line now and then, and with `as_json` nothing."""
    console = Console(stderr=True)
    if as_json:
        yield lambda done, total: None
        return
    if not console.is_terminal:
        lines = Lines()
        yield lambda done, total: lines.count(text, done=done, total=total, unit="pictures")
        return
    with Progress(console=console) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def check_picture_name(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """A click callback: refuse before anything is drawn what could not be saved afterwards."""
    if path and path.suffix.lower() not in FORMATS:
        raise click.BadParameter(f"'{path}' does not end in {', '.join(FORMATS)}.")
    return path


def free_name(path: Path, *, overwrite: bool) -> Path:
    """`path`, or with `-2` and so on before its suffix where that is taken."""
    if overwrite:
        return path
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name) and not os.path.lexists(pictures_folder(name)))


def pictures_folder(grid: Path) -> Path:
    """Where the single pictures of a grid go."""
    return grid.with_name(f"{grid.stem}-pictures")


def check_picture_place(path: Path, *, overwrite: bool, faults: list[InfluencerAIError]) -> None:
    """Append to `faults` why a picture could not be saved: its name is taken, or its folder takes no files."""
    if os.path.lexists(path) and not overwrite:
        remedy = "Choose another name by --out, or give --overwrite to replace it."
        faults.append(ValidationError(f"{path} exists already.", remedy=remedy))
    _check_folder(path.parent, faults=faults)


def check_folder_place(folder: Path, *, overwrite: bool, faults: list[InfluencerAIError]) -> None:
    """The same for a folder of pictures."""
    if os.path.lexists(folder) and not (overwrite and folder.is_dir()):
        remedy = "Choose another name by --out, or give --overwrite to replace pictures of the same names in it."
        faults.append(ValidationError(f"{folder} exists already.", remedy=remedy))
    _check_folder(folder.parent, faults=faults)


def check_size(path: Path, comparison: LoraComparison, *, side: int) -> None:
    """Refuse a grid that its format, or other programs, could not open.

    Raises:
        ValidationError: names the size and the options to change.
    """
    from influencerai.generate.comparison_grid import grid_size

    format_name = FORMATS[path.suffix.lower()]
    width, height = grid_size(side, columns=len(comparison.columns), rows=comparison.rows)
    longest = _LONGEST.get(format_name)
    remedy = "Draw fewer or smaller pictures: --size, --count, fewer prompts, checkpoints or strengths."
    if longest and max(width, height) > longest:
        raise ValidationError(
            f"A grid of {width} x {height} pixels is too large for {format_name}, whose limit is {longest}.",
            remedy=f"{remedy} Or write a .png.",
        )
    if width * height > _MOST_PIXELS:
        raise ValidationError(
            f"A grid of {width} x {height} pixels is too large: most programs refuse more than {_MOST_PIXELS:,}.",
            remedy=remedy,
        )


def save_picture(image: Image, path: Path) -> None:
    """Save in the format that the suffix names, with the record that the picture carries.

    Raises:
        InfluencerAIError: the file cannot be written.
    """
    from influencerai.generate.picture_record import encoded

    atomic_file.write_atomic(path, encoded(image, format_name=FORMATS[path.suffix.lower()]))


def _check_folder(folder: Path, *, faults: list[InfluencerAIError]) -> None:
    try:
        probe(folder)
    except OSError as error:
        text = f"{folder} cannot be written: {error.strerror or error}."
        faults.append(ValidationError(text, remedy="Choose a folder that you may write to."))
