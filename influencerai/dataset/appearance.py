"""Appearance: the little of a picture's look that an inspection compares and warns of."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageChops, ImageStat

SIDE = 16
"""Rows and columns of cells."""
ALIKE_BITS, ALIKE_CELL = 20, 55
"""At most so many bits of the fingerprint and levels of one cell lie between two files of one picture.

Measured on 40 drawn portraits of 128 pixels: saved again as JPEG of quality 40, at half the size, lighter by a tenth,
or with one pixel cut off each side, they were at most 19 bits and 44 levels apart; of two different drawings of one
character, which may differ in the mouth alone, the nearest were 1 bit, but 67 levels apart.
"""
FLAT_SPREAD = 4.0
"""Standard deviation of the brightness, of 0 to 255, below which nothing can be made out."""
MASK_EXTREMES, MASK_SHARE = 0.9, 0.05
"""A mask has at least so large a share of black and white together, and of each. Drawings on paper have less black."""
_BLACK, _WHITE = 8, 247
_GREY_SPREAD = 6


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Depends on the upright pixels alone."""

    fingerprint: int
    """Whether each of 16 x 17 cells is brighter than its right neighbour: 256 bits."""
    cells: bytes
    """Mean colour of each of 16 x 16 cells."""
    spread: float
    """Standard deviation of the brightness."""
    is_like_mask: bool = False
    """Whether it is of black and white areas alone, as masks are."""

    @property
    def is_flat(self) -> bool:
        return self.spread < FLAT_SPREAD

    def is_like(self, other: Appearance) -> bool:
        """Whether both are probably the same picture. A flat one is like nothing."""
        if (self.fingerprint ^ other.fingerprint).bit_count() > ALIKE_BITS or self.is_flat or other.is_flat:
            return False
        for band in range(3):
            one, two = self.cells[band::3], other.cells[band::3]
            lighter = (sum(one) - sum(two)) / len(one)
            if max(abs(left - right - lighter) for left, right in zip(one, two, strict=True)) > ALIKE_CELL:
                return False
        return True


def appearance(image: Image.Image, *, transposition: Image.Transpose | None = None) -> Appearance:
    """The appearance of a decoded picture of any mode, after `transposition`."""
    small = _small(image)
    if transposition is not None:
        small = small.transpose(transposition)
    grey = small.convert("L")
    cells = grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX).tobytes()
    fingerprint = 0
    for row in range(SIDE):
        for place in range(row * (SIDE + 1), row * (SIDE + 1) + SIDE):
            fingerprint = fingerprint << 1 | (cells[place] > cells[place + 1])
    colours = small.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
    return Appearance(
        fingerprint=fingerprint,
        cells=colours,
        spread=ImageStat.Stat(grey).stddev[0],
        is_like_mask=_is_like_mask(small, grey),
    )


def _is_like_mask(small: Image.Image, grey: Image.Image) -> bool:
    counts, total = grey.histogram(), grey.width * grey.height
    black, white = sum(counts[: _BLACK + 1]) / total, sum(counts[_WHITE:]) / total
    if min(black, white) < MASK_SHARE or black + white < MASK_EXTREMES:
        return False
    red, green, blue = small.split()
    differences = (ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return all(ImageStat.Stat(difference).mean[0] < _GREY_SPREAD for difference in differences)


def _small(image: Image.Image) -> Image.Image:
    """In RGB, a few pixels for each cell; what is transparent is white."""
    size = (4 * (SIDE + 1), 4 * SIDE)
    if image.mode.startswith("I;16"):
        image = Image.frombytes("L", image.size, image.convert("I;16").tobytes()[1::2])
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", size, "white"), small)
    return small.convert("RGB")
