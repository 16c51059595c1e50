"""A comparison grid: sections of labelled rows under labelled columns, with a title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from influencerai.generate.labels import text_width, wrapped, write
from influencerai.generate.picture_record import grid_record

TITLE_LINES, SECTION_LINES, COLUMN_LINES, ROW_LINES = 2, 2, 2, 3
_PAPER, _INK, _GREY, _RULE = "#ffffff", "#1a1a1a", "#5f6368", "#d5d7da"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A labelled row of pictures, one per column; None leaves a cell empty."""

    label: str
    images: Sequence[Image.Image | None]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows with a title of their own, such as a prompt."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Measures in pixels, in proportion to the pictures."""

    side: int
    columns: int
    label_width: int | None = None
    """Of the rows' labels, of which more lines are made beyond the widest; None is the widest."""

    @property
    def gap(self) -> int:
        return max(4, self.side // 48)

    @property
    def font(self) -> int:
        return min(32, max(13, self.side // 18))

    @property
    def line(self) -> int:
        return self.font + self.font // 3

    @property
    def margin(self) -> int:
        """Left of the pictures, where the rows' labels stand, if there are any."""
        widest = 9 * self.font
        label = widest if self.label_width is None else min(self.label_width, widest)
        return self.gap + (label and label + self.gap)

    @property
    def width(self) -> int:
        return self.margin + self.columns * (self.side + self.gap) + self.gap

    def head(self, *, lines: int) -> int:
        return lines * self.line + 2 * self.gap if lines else self.gap


def grid_size(side: int, *, columns: int, rows: Sequence[int]) -> tuple[int, int]:
    """Width and height that `comparison_grid` does not exceed, for square pictures and a number of rows per section."""
    layout = _Layout(side=side, columns=columns)
    sections = len(rows) * layout.head(lines=SECTION_LINES + COLUMN_LINES) + sum(rows) * (side + layout.gap)
    return layout.width, layout.head(lines=TITLE_LINES) + sections


def comparison_grid(sections: Sequence[Section], *, columns: Sequence[str], title: str = "") -> Image.Image:
    """One RGB picture of all, which carries the records of its pictures.

    Each section has its title, the columns' labels and its rows, whose labels stand on the left. Pictures are not
    scaled; a smaller one stands in the middle of its cell.
    """
    images = [image for section in sections for row in section.rows for image in row.images if image]
    side = max((max(image.size) for image in images), default=64)
    layout = _Layout(side=side, columns=len(columns))
    labels = {row.label for section in sections for row in section.rows}
    layout = replace(layout, label_width=max((text_width(label, size=layout.font) for label in labels), default=0))
    _, height = grid_size(side, columns=len(columns), rows=[len(section.rows) for section in sections])
    width = layout.width
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    top = layout.gap
    if title:
        top = _text(draw, title, at=(layout.gap, top), width=width - 2 * layout.gap, lines=TITLE_LINES, layout=layout)
    for index, section in enumerate(sections):
        if index or title:
            draw.line((layout.gap, top, width - layout.gap, top), fill=_RULE)
            top += layout.gap
        top = _section(canvas, draw, section, columns=columns, top=top, layout=layout)
    canvas = canvas.crop((0, 0, width, top))
    canvas.info |= grid_record(images, columns=columns)
    return canvas


def _section(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    section: Section,
    *,
    columns: Sequence[str],
    top: int,
    layout: _Layout,
) -> int:
    """Draw one section from `top` on; returns where it ends."""
    if section.title:
        room = canvas.width - 2 * layout.gap
        top = _text(
            draw, section.title, at=(layout.gap, top), width=room, lines=SECTION_LINES, layout=layout, fill=_INK
        )
    below = top
    for index, label in enumerate(columns):
        left = layout.margin + index * (layout.side + layout.gap)
        below = max(below, _text(draw, label, at=(left, top), width=layout.side, lines=COLUMN_LINES, layout=layout))
    top = below
    for row in section.rows:
        middle = top + (layout.side - layout.line) // 2
        _text(
            draw,
            row.label,
            at=(layout.gap, middle),
            width=layout.margin - 2 * layout.gap,
            lines=ROW_LINES,
            layout=layout,
        )
        for index, image in enumerate(row.images):
            if image:
                left = layout.margin + index * (layout.side + layout.gap)
                place = (left + (layout.side - image.width) // 2, top + (layout.side - image.height) // 2)
                canvas.paste(image.convert("RGB"), place)
        top += layout.side + layout.gap
    return top


def _text(
    draw: ImageDraw.ImageDraw,
    text: str,
    *,
    at: tuple[int, int],
    width: int,
    lines: int,
    layout: _Layout,
    fill: str = _GREY,
) -> int:
    """Write a text; returns where the next thing may stand."""
    if not text:
        return at[1]
    font, shown = wrapped(text, size=layout.font, width=width, lines=lines)
    write(draw, shown, at=at, font=font, line=layout.line, fill=fill)
    return at[1] + len(shown) * layout.line + layout.gap // 2
