"""Facts of one picture: everything that an inspection needs of its pixels, from decoding it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from influencerai.dataset.appearance import Appearance, appearance
from influencerai.dataset.formats import sniff
from influencerai.dataset.image_file import decode, has_orientation, transposition_of, upright_size
from influencerai.dataset.report import ImageFormat


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """Depends on the file's bytes alone, so it may be remembered by their hash."""

    format: ImageFormat
    """By content."""
    width: int
    """Pixels, after EXIF orientation."""
    height: int
    """Pixels, after EXIF orientation."""
    is_animated: bool
    """Whether there are further frames or pages, of which none is used."""
    has_orientation: bool
    """Whether EXIF has an orientation."""
    appearance: Appearance


def picture_facts(data: bytes, *, max_pixels: int) -> PictureFacts:
    """The facts of a picture whose pixels can all be decoded.

    Raises:
        DatasetError: as `decode`.
    """
    image = decode(data, max_pixels=max_pixels)
    format_ = cast(ImageFormat, sniff(data))  # `decode` takes no other.
    width, height = upright_size(image)
    # Further pictures of a JPEG are its previews, those of a HEIC other shots.
    is_animated = format_ not in ("JPEG", "HEIC") and bool(getattr(image, "is_animated", False))
    transposition = transposition_of(image)
    return PictureFacts(
        format=format_,
        width=width,
        height=height,
        is_animated=is_animated,
        has_orientation=has_orientation(image, data),
        appearance=appearance(image, transposition=transposition),
    )
