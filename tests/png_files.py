"""Image files of the kinds that Pillow does not write itself, byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

GRAY, RGB, GRAY_ALPHA = 0, 2, 4
"""PNG colour types."""


def png(size: tuple[int, int], *, color_type: int, rows: Sequence[bytes], bits: int = 8) -> bytes:
    """A PNG of unfiltered rows."""
    header = struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def png_16bit(pixels: Sequence[Sequence[int]], *, color_type: int) -> bytes:
    """A PNG of one row of 16-bit pixels, each a sequence of channel values."""
    row = b"".join(struct.pack(f">{len(pixel)}H", *pixel) for pixel in pixels)
    return png((len(pixels), 1), color_type=color_type, rows=[row], bits=16)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
