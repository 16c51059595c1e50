"""Outliers: images that stand out from their set, or that the set has twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from influencerai.dataset.picture_facts import PictureFacts
from influencerai.dataset.report import listed

COMPARED_IMAGES = 2000
"""Of a larger set the first ones are compared with each other: the time grows with the square."""
FEW_OF_A_SHAPE = 0.25
"""Share of the set up to which images of the other orientation are remarked on."""
TINY_SIDE = 64
"""Pixels; eight cells of a latent."""


@dataclass(frozen=True)
class Seen:
    """An image that can be used, and its facts."""

    path: str
    facts: PictureFacts


def outliers(images: Sequence[Seen], *, smallest_side: int = TINY_SIDE) -> tuple[list[str], list[str]]:
    """(warnings, notes) about all of them; images with a side below `smallest_side` pixels are remarked on."""
    warnings, notes = _on_their_side(images)
    if flat := [image.path for image in images if image.facts.appearance.is_flat]:
        warnings.append(f"Nearly one colour, so there is nothing to learn from: {listed(flat)}.")
    if masks := [image.path for image in images if image.facts.appearance.is_like_mask]:
        text = f"Black and white areas alone, as masks have them: {listed(masks)}."
        warnings.append(f"{text} Take them out of the folder if they are masks.")
    if tiny := [image.path for image in images if min(image.facts.width, image.facts.height) < smallest_side]:
        text = f"A side has less than {smallest_side} pixels, so there is little to learn from: {listed(tiny)}."
        warnings.append(f"{text} Use larger copies.")
    if pairs := _alike(images[:COMPARED_IMAGES]):
        notes.append(f"Probably the same picture: {listed(pairs)}. Keep one of each.")
    return warnings, notes


def _on_their_side(images: Sequence[Seen]) -> tuple[list[str], list[str]]:
    """Images that are wider than high in a set of upright ones, or the reverse.

    One that has the sides of most others exchanged and no EXIF orientation has probably lost it.
    """
    wide = [image for image in images if image.facts.width > image.facts.height]
    high = [image for image in images if image.facts.width < image.facts.height]
    few, many = sorted((wide, high), key=len)
    if not few or len(few) > FEW_OF_A_SHAPE * len(images) or len(many) < len(images) / 2:
        return [], []
    size, count = Counter((image.facts.width, image.facts.height) for image in many).most_common(1)[0]
    turned = [
        image.path
        for image in few
        if (image.facts.height, image.facts.width) == size and not image.facts.has_orientation
    ]
    warnings, notes = [], []
    if turned and count > len(few):
        text = f"Probably on their side, since their size is that of the others turned by 90 degrees: {listed(turned)}."
        warnings.append(f"{text} Look at them, and turn them upright.")
    if rest := [image.path for image in few if image.path not in turned or not warnings]:
        shape = "wider than high" if few is wide else "higher than wide"
        notes.append(f"{len(rest)} of {len(images)} images are {shape}: {listed(rest)}. Does one lie on its side?")
    return warnings, notes


def _alike(images: Sequence[Seen]) -> list[str]:
    """Pairs of images that show the same, without those of the same bytes."""
    pairs = []
    for place, image in enumerate(images):
        other = next(
            (earlier for earlier in images[:place] if earlier.facts.appearance.is_like(image.facts.appearance)), None
        )
        if other is not None:
            pairs.append(f"{other.path} and {image.path}")
    return pairs
