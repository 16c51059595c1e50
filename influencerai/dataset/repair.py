"""Repair: the same pixels in a file without what keeps Pillow from reading it.

A picture is refused only when its pixels cannot be had. Texts of megabytes, broken metadata, wrong checksums of chunks
and a missing end mark are no reasons. Nothing is guessed: where one pixel might differ there is no repair.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"eXIf")
"""Chunks that decide colours and orientation, beside the data."""
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and distance of columns and rows, of each pass of an interlaced PNG."""
_LONGEST_METADATA = 2**20
_JPEG_SEGMENT = re.compile(rb"\xff+([\xc0-\xfe])")
_JPEG_METADATA = frozenset(range(0xE0, 0xF0)) | {0xFE}
_JPEG_COLOURS = frozenset({0xE0, 0xE1, 0xE2, 0xEE})
"""JFIF, EXIF, colour profile and Adobe's transform."""
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_TAILS = (b"", *(bytes([byte, byte ^ 0x5A]) * 2**10 for byte in (0x00, 0x24, 0x55, 0x6D, 0x92, 0xAA, 0xDB, 0xF0, 0xFE)))
"""Bytes that may follow the data of a JPEG: many different bits, no marker."""
_WEBP_PIXELS = (b"VP8X", b"ICCP", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF")


def repaired(data: bytes, *, format_: str) -> Iterator[bytes]:
    """Files with exactly the pixels of `data`, the most faithful first; none where the pixels are not all there."""
    if format_ == "PNG":
        yield from _png(data)
    elif format_ == "JPEG":
        yield from _jpeg(data)
    elif format_ == "WEBP":
        yield from _webp(data)


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height as a PNG's header has them, unchecked; (0, 0) where there is none."""
    if data[:8] != _PNG_SIGNATURE or len(data) < 24:
        return 0, 0
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _png(data: bytes) -> Iterator[bytes]:
    chunks = list(_png_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        return
    pixels = b"".join(content for name, content, _ in chunks if name == b"IDAT")
    stream = _complete_stream(pixels, size=_png_data_size(chunks[0][1]))
    if stream is None:
        return
    facts = [
        (name, content)
        for name, content, is_sound in chunks
        if name in _PNG_PIXELS and (is_sound or name == b"IHDR") and len(content) <= _LONGEST_METADATA
    ]
    for left_out in ((), (b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"sRGB")):
        kept = [_png_chunk(name, content) for name, content in facts if name not in left_out]
        yield b"".join((_PNG_SIGNATURE, *kept, _png_chunk(b"IDAT", stream), _png_chunk(b"IEND", b"")))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(name, content, whether the checksum is right); the last one may be cut off."""
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        yield name, content, checksum == struct.pack(">I", zlib.crc32(name + content))
        position += 12 + length
        if name == b"IEND":
            return


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png_data_size(header: bytes) -> int:
    """Bytes of all rows of a PNG, each with its filter."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _PNG_CHANNELS.get(colour, 0)
    sizes = [(width, height)]
    if interlaced:
        sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def _complete_stream(compressed: bytes, *, size: int) -> bytes | None:
    """The compressed data if it holds all `size` bytes, ended where only its checksum is cut off."""
    unpacking = zlib.decompressobj()
    count, checksum, rest = 0, 1, compressed
    try:
        while rest and count <= size:
            piece = unpacking.decompress(rest, _LONGEST_METADATA)
            count, checksum, rest = count + len(piece), zlib.adler32(piece, checksum), unpacking.unconsumed_tail
        if count < size:
            return None
        if unpacking.eof:
            return compressed
        for length in range(1, 5):
            trial, ending = unpacking.copy(), struct.pack(">I", checksum)[-length:]
            trial.decompress(ending)
            if trial.eof:
                return compressed + ending
    except zlib.error:
        pass
    return None


def _jpeg(data: bytes) -> Iterator[bytes]:
    for kept in (_JPEG_COLOURS, frozenset({0xE0, 0xEE})):
        plain = _jpeg_without_metadata(data, kept=kept)
        if plain is not None:
            yield plain
            if _ends_after_last_block(plain):
                yield plain + b"\xff\xd9"


def _jpeg_without_metadata(data: bytes, *, kept: frozenset[int]) -> bytes | None:
    """The JPEG with only the `kept` ones of its APP segments; None where the segments lead nowhere."""
    parts, position = [b"\xff\xd8"], 2
    while (segment := _JPEG_SEGMENT.match(data, position)) and segment[1] != b"\xda":
        length = int.from_bytes(data[segment.end() : segment.end() + 2], "big")
        end = segment.end() + length
        if length < 2 or end > len(data):
            return None
        marker = segment[1][0]
        if marker not in _JPEG_METADATA or marker in kept:
            parts.append(data[segment.start() : end])
        position = end
    return b"".join((*parts, data[position:])) if segment else None


def _ends_after_last_block(data: bytes) -> bool:
    """Whether all pixels of a sequential JPEG without an end mark are there.

    Then they do not depend on what follows. In a progressive one a whole scan may be missing.
    """
    frame = next((match[1][0] for match in _JPEG_SEGMENT.finditer(data) if 0xC0 <= match[1][0] <= 0xCF), 0)
    if frame not in _SEQUENTIAL:
        return False
    found = set()
    stuffing = b"\0" if data.endswith(b"\xff") else b""  # else the next byte would make it a marker
    for tail in _TAILS:
        try:
            content = data + (stuffing + tail if tail else b"") + b"\xff\xd9"
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                found.add(hashlib.sha256(image.tobytes()).digest())
        except Exception:  # On broken bytes Pillow's plugins raise almost anything.
            return False
        if len(found) > 1:
            return False
    return True


def _webp(data: bytes) -> Iterator[bytes]:
    """Without EXIF and XMP, which stand behind the pixels and may be cut off."""
    parts, position = [], 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        content = data[position + 8 : position + 8 + length]
        if name in _WEBP_PIXELS:
            if len(content) < length:
                return
            if name == b"VP8X":
                content = bytes([content[0] & ~0b1100]) + content[1:]  # the flags of EXIF and XMP
            parts.append(struct.pack("<4sI", name, length) + content + b"\0" * (length % 2))
        position += 8 + length + length % 2
    body = b"WEBP" + b"".join(parts)
    yield b"RIFF" + struct.pack("<I", len(body)) + body
