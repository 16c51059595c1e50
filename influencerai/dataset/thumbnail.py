"""Thumbnails: a small WebP of one image."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from influencerai.dataset.decoding import Decoding
from influencerai.dataset.folder import read_file
from influencerai.dataset.image_file import MAX_FILE_BYTES, MAX_PIXELS, load_rgb
from influencerai.errors import DatasetError

QUALITY = 80


def thumbnail(
    path: Path, *, inside: Path, side: int = 256, max_pixels: int = MAX_PIXELS, decoding: Decoding | None = None
) -> bytes:
    """A WebP whose longer side is `side` pixels, upright, in sRGB and without metadata; never enlarged.

    The same file gives the same bytes.

    Args:
        path: the image.
        inside: folder that a link must not leave.
        side: pixels.
        max_pixels: cap on width x height of the image.
        decoding: limits that a process shares.

    Raises:
        DatasetError: no usable image, or outside of `inside`; names the file without its folder.
    """
    try:
        data = read_file(path, limit=MAX_FILE_BYTES, inside=inside)
    except DatasetError as error:
        raise DatasetError(f"{path.name}: {error.message}", remedy=error.remedy) from error
    with (decoding or Decoding()).hold(data):
        image = load_rgb(io.BytesIO(data), name=path.name, max_pixels=max_pixels)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
