"""Picture headers: facts of TIFF and BMP files that must be known before Pillow opens them.

A TIFF may be the RAW file of a camera, whose first picture is a preview, or list more pieces than it has rows; Pillow
makes an object of each piece. Pillow decodes run-length encoded BMPs in Python, one run at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MOST_TIFF_PIECES = 2**18
"""Strips or tiles: one per row of the highest picture, of four planes."""
MOST_TIFF_TAGS = 4096
LARGEST_RLE_BYTES = LARGEST_RLE_PIXELS = 2**22

_PIECES = frozenset({273, 279, 324, 325})
"""StripOffsets, StripByteCounts, TileOffsets, TileByteCounts."""
_SUBFILE_TYPE, _COMPRESSION, _ORIENTATION, _DNG_VERSION = 254, 259, 274, 50706
_IS_PREVIEW = 0b1
"""Of NewSubfileType: a reduced copy of another picture of the file, as in NEF, ARW, PEF and DNG."""
_RAW_COMPRESSIONS = frozenset({32767, 32769, 32770, 34713, 65000, 65535})
"""Of Sony, Epson, Samsung, Nikon, Kodak and Pentax."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value, by the type of a tag."""
_BYTE_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}


@dataclass(frozen=True, kw_only=True)
class TiffHeader:
    """Of the first picture of a TIFF."""

    is_raw: bool
    """Whether a camera wrote it as RAW; then the first picture is a preview."""
    has_orientation: bool
    pieces: int
    """Strips or tiles."""


def tiff_header(data: bytes) -> TiffHeader:
    """The header of a TIFF or BigTIFF; that of an empty one where it leads nowhere, which Pillow refuses."""
    values: dict[int, int] = {}
    pieces = 0
    for tag, count, value in _tags(data):
        values.setdefault(tag, value)
        if tag in _PIECES:
            pieces = max(pieces, count)
    return TiffHeader(
        is_raw=data[8:10] == b"CR"  # Canon's CR2
        or _DNG_VERSION in values
        or bool(values.get(_SUBFILE_TYPE, 0) & _IS_PREVIEW)
        or values.get(_COMPRESSION) in _RAW_COMPRESSIONS,
        has_orientation=_ORIENTATION in values,
        pieces=pieces,
    )


def is_long_rle(data: bytes) -> bool:
    """Whether a BMP is run-length encoded and so large that Python would decode it for seconds."""
    if data[:2] != b"BM" or len(data) < 54 or struct.unpack_from("<I", data, 14)[0] < 40:
        return False
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    is_large = abs(width * height) > LARGEST_RLE_PIXELS or len(data) > LARGEST_RLE_BYTES
    return compression in (1, 2) and is_large


def _tags(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(tag, number of values, first value or where the values are) of the first picture."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    try:
        (start,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
        (number,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, start)
        entry = struct.Struct(f"{order}HH{'Q8s' if is_big else 'I4s'}")
        start += 8 if is_big else 2
        for place in range(min(number, MOST_TIFF_TAGS)):
            tag, type_, count, content = entry.unpack_from(data, start + place * entry.size)
            size = _SIZES.get(type_, 0)
            is_inline = size in (1, 2, 4) and count * size <= len(content)
            yield tag, count, int.from_bytes(content[:size] if is_inline else content, _BYTE_ORDERS[order])
    except (struct.error, OverflowError):
        return
