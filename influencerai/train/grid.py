"""A grid of pictures: a labelled row per prompt."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP = 8
"""Pixels between pictures and around the grid."""
FONT_SIZE = 14
MAX_LABEL_LINES = 3

Row = tuple[str, Sequence[Image.Image]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def image_grid(rows: Sequence[Row], *, columns: Sequence[str] = ()) -> Image.Image:
    """One RGB picture of all: each row's label above its pictures, `columns` as headings of the columns.

    Every picture gets a cell of the largest one's size and stands in its middle, unscaled.
    """
    width = max((image.width for _, images in rows for image in images), default=1)
    height = max((image.height for _, images in rows for image in images), default=1)
    count = max((len(images) for _, images in rows), default=0)
    font = ImageFont.load_default(size=FONT_SIZE)
    total_width = GAP + max(1, count) * (width + GAP)
    labels = [_wrapped(label, font=font, width=total_width - 2 * GAP) for label, _ in rows]
    heading = max((len(_wrapped(text, font=font, width=width)) for text in columns), default=0)
    line = FONT_SIZE + 4
    total_height = GAP + line * heading + sum(line * len(lines) + height + 2 * GAP for lines in labels)
    grid = Image.new("RGB", (total_width, total_height), "white")
    draw = ImageDraw.Draw(grid)
    for index, text in enumerate(columns):
        lines = _wrapped(text, font=font, width=width)
        _write(draw, lines, left=GAP + index * (width + GAP), top=GAP // 2, font=font, line=line)
    top = GAP + line * heading
    for lines, (_, images) in zip(labels, rows, strict=True):
        _write(draw, lines, left=GAP, top=top, font=font, line=line)
        top += line * len(lines)
        for index, image in enumerate(images):
            left = GAP + index * (width + GAP)
            place = (left + (width - image.width) // 2, top + (height - image.height) // 2)
            grid.paste(image.convert("RGB"), place)
        top += height + 2 * GAP
    return grid


def _wrapped(text: str, *, font: Font, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, the last one cut off with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif len(lines) < MAX_LABEL_LINES:
            lines.append(word)
        else:
            lines[-1] += " ..."
            break
    for index, text_of_line in enumerate(lines):
        while font.getlength(lines[index]) > width and len(text_of_line) > 1:
            text_of_line = text_of_line[:-1]
            lines[index] = text_of_line + "..."
    return lines


def _write(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[str],
    *,
    left: int,
    top: int,
    font: Font,
    line: int,
) -> None:
    for index, text in enumerate(lines):
        draw.text((left, top + index * line), text, fill="black", font=font)
