"""One image file: recognised by its content, decoded whole, and turned into 8-bit sRGB."""

from __future__ import annotations

import io
import math
import re
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError, features

from influencerai.dataset.folder import read_file
from influencerai.dataset.formats import FORMATS, described, sniff
from influencerai.dataset.picture_headers import MOST_TIFF_PIECES, is_long_rle, tiff_header
from influencerai.dataset.repair import png_size, repaired
from influencerai.errors import DatasetError

MAX_PIXELS = 8192 * 8192
"""Default cap on width x height. A Python process holds 4 bytes for each while it decodes."""
MAX_FILE_BYTES = 2**29
"""Cap on an image file: 64 megapixels of uncompressed 16-bit RGBA."""
MAX_JPEG_SCANS = 100
"""Each scan of a progressive JPEG passes over all pixels, and takes as little as 200 bytes; cameras use about 10."""

_JPEG_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_HEAD_BYTES = 512
_DEEP_MODES = ("I", "F")
"""Of TIFF files of scanners, microscopes and renderers; Pillow would clip them at 255."""
_PHOTOMETRIC = 262
"""Of TIFF: 0 where white is zero."""
_INVERTED = bytes(range(255, -1, -1))
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_rgb(source: Path | BinaryIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image as 8-bit RGB in sRGB, upright.

    The formats are told apart by content. The EXIF orientation is applied; an embedded colour profile
    is converted to sRGB (one that cannot be read is ignored); transparency is laid on white; 16-bit samples
    keep their high byte; of an animation the first frame counts, of a TIFF the first page; CMYK JPEGs have Adobe's
    inverted polarity.

    Args:
        source: a path, or an open binary file.
        name: what errors call the image; by default the path.
        max_pixels: cap on width x height, checked from the header before anything is decoded; Pillow's own limit,
            89 megapixels, holds above it.

    Raises:
        DatasetError: not one of the formats, truncated, corrupt or too large; names the image.
    """
    try:
        data = read_file(source, limit=MAX_FILE_BYTES) if isinstance(source, Path) else source.read(MAX_FILE_BYTES)
        return _to_rgb(_upright(decode(data, max_pixels=max_pixels)))
    except DatasetError as error:
        raise DatasetError(f"{name or source}: {error.message}", remedy=error.remedy) from error


def decode(data: bytes, *, max_pixels: int) -> Image.Image:
    """The image in the file's own mode and orientation, completely decoded.

    Raises:
        DatasetError: as `load_rgb`, without the name.
    """
    max_pixels = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    if not data:
        raise DatasetError("The file is empty.", remedy="Copy or download it again.")
    found = sniff(data)
    if found not in FORMATS or not can_read(found):
        noun, remedy = described(data[:_HEAD_BYTES])
        raise DatasetError(f"This is {noun} by content.", remedy=remedy)
    _check_header(data, format_=found)
    try:
        return _opened(data, format_=found, max_pixels=max_pixels)
    except DatasetError:
        raise
    except Exception as error:  # On hostile bytes Pillow's plugins raise almost anything.
        if isinstance(error, MemoryError):
            raise DatasetError("The memory does not suffice for this image.", remedy="Scale it down.") from error
        if not max(png_size(data)) or math.prod(png_size(data)) <= max_pixels:
            for sound in repaired(data, format_=found):
                with suppress(Exception):
                    return _opened(sound, format_=found, max_pixels=max_pixels)
        detail = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise DatasetError(f"The {found} data is truncated or corrupt{detail}.", remedy="Save it again.") from error


def is_other_format(data: bytes) -> bool:
    """Whether this is no picture of a format that is read, as opposed to a damaged one."""
    found = sniff(data)
    return found not in FORMATS or not can_read(found) or (found == "TIFF" and tiff_header(data).is_raw)


def can_read(format_: str) -> bool:
    """Whether this installation decodes a format; HEIC and AVIF need libraries that not every build has."""
    if format_ == "HEIC":
        return _register_heif()
    return format_ != "AVIF" or bool(features.check("avif"))


def pixel_count(data: bytes) -> int:
    """Width x height from the header, without decoding; 0 where the header cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            found = str(sniff(data))
            _check_header(data, format_=found)
            image = _header(data, format_=found)
        return image.width * image.height
    except Image.DecompressionBombError:
        return 0  # It is refused at once.
    except Exception:  # On hostile bytes Pillow's plugins raise almost anything.
        return math.prod(png_size(data))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels after EXIF orientation."""
    return (image.height, image.width) if _orientation(image) >= 5 else image.size


def transposition_of(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes the image upright; None where it is upright."""
    return _TRANSPOSITIONS.get(_orientation(image))


def has_orientation(image: Image.Image, data: bytes) -> bool:
    """Whether the file has an orientation; that of a HEIC or TIFF is applied while it is decoded."""
    if image.format == "TIFF":
        return tiff_header(data).has_orientation
    try:
        return image.format == "HEIF" or ExifTags.Base.Orientation in image.getexif()
    except Exception:  # Broken EXIF does not make a picture unusable.
        return False


def _header(data: bytes, *, format_: str) -> Image.Image:
    """The image with its pixels not decoded yet; raises whatever Pillow raises."""
    if format_ == "HEIC":
        _register_heif()
    return Image.open(io.BytesIO(data), formats=("HEIF" if format_ == "HEIC" else format_,))


def _opened(data: bytes, *, format_: str, max_pixels: int) -> Image.Image:
    """The image, completely decoded; raises DatasetError for too many pixels, and whatever Pillow raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Of broken metadata, which do not matter.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _header(data, format_=format_)
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(max_pixels)
            if image.mode in _DEEP_MODES:
                text = "The samples have 32 bits, of which the range is unknown."
                raise DatasetError(text, remedy="Save it with 8 or 16 bits a channel.")
            image.load()
            if _is_negative(image):
                image.frombytes(image.tobytes().translate(_INVERTED))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(max_pixels) from error
    return image


@cache
def _register_heif() -> bool:
    """Make Pillow read HEIC, and return whether it does."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def _is_negative(image: Image.Image) -> bool:
    """Whether 16-bit samples of a TIFF count from white, which Pillow minds at 1 and 8 bits alone."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0


def _check_header(data: bytes, *, format_: str) -> None:
    """Refuse, before Pillow opens it, a file of which few bytes cost much, or which shows a preview.

    Raises:
        DatasetError: the file as a whole is refused.
    """
    if format_ == "JPEG" and _has_too_many_scans(data):
        raise DatasetError(f"The JPEG has more than {MAX_JPEG_SCANS} scans.", remedy="Save it again.")
    if format_ == "BMP" and is_long_rle(data):
        raise DatasetError("The BMP is large and run-length encoded.", remedy="Save it as PNG.")
    if format_ == "TIFF":
        header = tiff_header(data)
        if header.is_raw:
            raise DatasetError("This is a camera RAW file by content.", remedy="Convert it to PNG, JPEG or WebP.")
        if header.pieces > MOST_TIFF_PIECES:
            raise DatasetError(f"The TIFF has more than {MOST_TIFF_PIECES:,} strips or tiles.", remedy="Save it again.")


def _too_many_pixels(max_pixels: int) -> DatasetError:
    return DatasetError(f"The image has more than {max_pixels:,} pixels.", remedy="Scale it down.")


def _has_too_many_scans(data: bytes) -> bool:
    """Walks over the segments as libjpeg does, up to the end of the image; what is appended to it does not count."""
    scans, position = 0, 0
    while scans <= MAX_JPEG_SCANS and (segment := _JPEG_SEGMENT.search(data, position)) and segment[1] != b"\xd9":
        scans += segment[1] == b"\xda"
        position = segment.end() + int.from_bytes(data[segment.end() : segment.end() + 2], "big")
    return scans > MAX_JPEG_SCANS


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Broken EXIF does not make a picture unusable.
        return 1
    return value if value in _TRANSPOSITIONS else 1


def _upright(image: Image.Image) -> Image.Image:
    transposition = transposition_of(image)
    if transposition is None:
        return image
    upright = image.transpose(transposition)
    upright.info = image.info
    return upright


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255. These bytes are little-endian: the high byte is the second.
        high_bytes = image.convert("I;16").tobytes()[1::2]
        return _to_srgb(Image.frombytes("L", image.size, high_bytes), profile)
    if not image.has_transparency_data:
        plain = image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")
        return _to_srgb(plain, profile)
    rgba = image.convert("RGBA")
    opaque = _to_srgb(rgba.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), profile)
    white = Image.new("RGB", image.size, "white")
    return Image.composite(opaque, white, rgba.getchannel("A"))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                assert converted is not None  # None only with inPlace
                return converted
        except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
            pass  # Broken, for another mode, or Pillow without littlecms: the samples are taken as sRGB.
    return image.convert("RGB")
