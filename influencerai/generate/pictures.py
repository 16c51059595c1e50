"""Pictures: what a run has drawn; a list of images that a notebook shows as one labelled grid."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image, registered_extensions

from influencerai.generate.grid import image_grid
from influencerai.generate.picture_record import encoded


class Pictures(list[Image]):
    """The images row by row, a row per prompt.

    Args:
        rows: (prompt, its images).
        columns: a heading per column.
    """

    def __init__(self, rows: Sequence[tuple[str, Sequence[Image]]], *, columns: Sequence[str] = ()) -> None:
        super().__init__(image for _, images in rows for image in images)
        self._rows = rows
        self._columns = columns

    def grid(self) -> Image:
        """All images in one, with their prompts and the headings."""
        return image_grid(self._rows, columns=self._columns)

    def save(self, path: str | Path) -> None:
        """Write the grid with the records of its images; the suffix of `path` decides the format."""
        path = Path(path)
        format_name = registered_extensions().get(path.suffix.lower(), "PNG")
        path.write_bytes(encoded(self.grid(), format_name=format_name))

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.grid().save(file, format="png")
        return file.getvalue()
