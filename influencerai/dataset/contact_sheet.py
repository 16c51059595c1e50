"""Contact sheet: one picture of a whole dataset, each image with the frame that it is cropped to, and what is odd."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from influencerai.dataset.folder import read_file
from influencerai.dataset.image_file import MAX_FILE_BYTES, MAX_PIXELS, load_rgb
from influencerai.dataset.report import ImageReport
from influencerai.errors import DatasetError
from influencerai.training_plan.batches import MUCH_CUT
from influencerai.training_plan.buckets import Crop

MOST_IMAGES = 1000
SIDE = 240
"""Longest side of an image on the sheet, in pixels."""
_GAP, _LINE, _FONT_SIZE = 16, 17, 13
_CAPTION_LINES, _FINDING_LINES = 2, 3
_INK, _GREY, _PAPER, _AMBER, _RED = "#1c1c1c", "#6b6b6b", "#ffffff", "#9a5b00", "#b3261e"
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Lines:
    """Texts below an image, one colour each."""

    texts: Sequence[str]
    colour: str


def contact_sheet(
    folder: Path, images: Sequence[ImageReport], *, crops: Mapping[str, Crop], max_pixels: int = MAX_PIXELS
) -> bytes:
    """A PNG of up to MOST_IMAGES images in the order given, with names, sizes, captions and findings.

    Args:
        folder: the dataset folder; links in it are followed.
        images: as the inspection found them.
        crops: how each usable image becomes of its training size, by path.
        max_pixels: cap on width x height of an image.
    """
    shown = images[:MOST_IMAGES]
    columns = min(12, max(1, math.ceil(math.sqrt(1.6 * len(shown)))))
    font = ImageFont.load_default(size=_FONT_SIZE)
    texts = [_texts(image, crops.get(image.path), font=font) for image in shown]
    rows = [range(start, min(start + columns, len(shown))) for start in range(0, len(shown), columns)]
    heights = [SIDE + 6 + _LINE * max(sum(len(lines.texts) for lines in texts[index]) for index in row) for row in rows]
    size = (_GAP + columns * (SIDE + _GAP), _GAP + sum(height + _GAP for height in heights))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, index in enumerate(row):
            left = _GAP + column * (SIDE + _GAP)
            picture = _picture(folder, shown[index], crops.get(shown[index].path), max_pixels=max_pixels)
            sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + SIDE - picture.height))
            _write(draw, texts[index], left=left, top=top + SIDE + 6, font=font)
        top += height + _GAP
    facts = PngInfo()
    facts.add_text("Software", "InfluencerAI")  # by which an inspection knows that this is no picture of the dataset
    data = io.BytesIO()
    sheet.save(data, "PNG", pnginfo=facts)
    return data.getvalue()


def _picture(folder: Path, image: ImageReport, crop: Crop | None, *, max_pixels: int) -> Image.Image:
    """The image, at most SIDE wide and high, pale where it is cut away; a grey field where it cannot be used."""
    try:
        if image.errors:
            raise DatasetError("")
        data = read_file(folder / image.path, limit=MAX_FILE_BYTES)
        picture = load_rgb(io.BytesIO(data), name=image.path, max_pixels=max_pixels)
    except DatasetError:
        empty = Image.new("RGB", (SIDE, SIDE * 2 // 3), "#e4e4e4")
        draw = ImageDraw.Draw(empty)
        draw.line((0, 0, empty.width, empty.height), fill="#c4c4c4", width=2)
        draw.line((0, empty.height, empty.width, 0), fill="#c4c4c4", width=2)
        return empty
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if crop is None:
        return picture
    across, down = picture.width / crop.resized[0], picture.height / crop.resized[1]
    left, top, right, bottom = crop.box
    box = (round(left * across), round(top * down), round(right * across), round(bottom * down))
    pale = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.65)
    pale.paste(picture.crop(box), box[:2])
    frame = (box[0], box[1], box[2] - 1, box[3] - 1)
    ImageDraw.Draw(pale).rectangle(frame, outline="#ff5722", width=2)
    return pale


def _texts(image: ImageReport, crop: Crop | None, *, font: _Font) -> list[_Lines]:
    found = [_Lines(_wrapped(image.path, font=font, lines=1), _INK)]
    if crop and image.width and image.height:
        left, top, right, bottom = crop.box
        size = f"{image.width} x {image.height}, trained {right - left} x {bottom - top}"
        found.append(_Lines([size], _GREY))
        if crop.kept <= 1 - MUCH_CUT:
            found.append(_Lines([f"{crop.kept:.0%} is kept"], _AMBER))
    caption = image.caption or ("" if image.errors else "no caption")
    source = " (trigger word)" if image.caption_source == "trigger word" else ""
    found.append(_Lines(_wrapped(caption + source, font=font, lines=_CAPTION_LINES), _GREY))
    findings = [(text, _RED) for text in image.errors] + [(text, _AMBER) for text in image.warnings]
    room = _FINDING_LINES
    for text, colour in findings:
        lines = _wrapped(text, font=font, lines=room) if room else []
        found.append(_Lines(lines, colour))
        room -= len(lines)
    return found


def _wrapped(text: str, *, font: _Font, lines: int) -> list[str]:
    """The text in at most so many lines as wide as an image, cut off with an ellipsis."""
    found: list[str] = []
    rest = " ".join("".join(char if char.isprintable() else "\ufffd" for char in text).split())
    while rest and len(found) < lines:
        end = len(rest)
        while end > 1 and font.getlength(rest[:end]) > SIDE:
            end -= 1
        blank = rest.rfind(" ", 0, end + 1)
        if end < len(rest) and blank > end // 2:
            end = blank
        found.append(rest[:end].strip())
        rest = rest[end:].strip()
    if rest and found:
        last = found[-1]
        while last and font.getlength(f"{last}\u2026") > SIDE:
            last = last[:-1]
        found[-1] = f"{last}\u2026"
    return found


def _write(draw: ImageDraw.ImageDraw, texts: Sequence[_Lines], *, left: int, top: int, font: _Font) -> None:
    for lines in texts:
        for text in lines.texts:
            draw.text((left, top), text, fill=lines.colour, font=font)
            top += _LINE
