"""A grid of pictures: a labelled row per prompt."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from influencerai.generate.labels import Font, wrapped, write
from influencerai.generate.picture_record import grid_record

GAP = 8
"""Pixels between pictures and around the grid."""
FONT_SIZE = 14
MAX_LABEL_LINES = 3

Row = tuple[str, Sequence[Image.Image]]


def image_grid(rows: Sequence[Row], *, columns: Sequence[str] = ()) -> Image.Image:
    """One RGB picture of all: each row's label above its pictures, `columns` as headings of the columns.

    Every picture gets a cell of the largest one's size and stands in its middle, unscaled.
    """
    width = max((image.width for _, images in rows for image in images), default=1)
    height = max((image.height for _, images in rows for image in images), default=1)
    count = max((len(images) for _, images in rows), default=0)
    total_width = GAP + max(1, count) * (width + GAP)
    labels = [_wrapped(label, width=total_width - 2 * GAP) for label, _ in rows]
    headings = [_wrapped(text, width=width) for text in columns]
    heading = max((len(lines) for _, lines in headings), default=0)
    line = FONT_SIZE + 4
    total_height = GAP + line * heading + sum(line * len(lines) + height + 2 * GAP for _, lines in labels)
    grid = Image.new("RGB", (total_width, total_height), "white")
    draw = ImageDraw.Draw(grid)
    for index, (font, lines) in enumerate(headings):
        write(draw, lines, at=(GAP + index * (width + GAP), GAP // 2), font=font, line=line, fill="black")
    top = GAP + line * heading
    for (font, lines), (_, images) in zip(labels, rows, strict=True):
        write(draw, lines, at=(GAP, top), font=font, line=line, fill="black")
        top += line * len(lines)
        for index, image in enumerate(images):
            left = GAP + index * (width + GAP)
            place = (left + (width - image.width) // 2, top + (height - image.height) // 2)
            grid.paste(image.convert("RGB"), place)
        top += height + 2 * GAP
    grid.info |= grid_record((image for _, images in rows for image in images), columns=columns)
    return grid


def _wrapped(text: str, *, width: int) -> tuple[Font, list[str]]:
    return wrapped(text, size=FONT_SIZE, width=width, lines=MAX_LABEL_LINES)
