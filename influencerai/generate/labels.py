"""Labels: text on pictures, in a font that has its characters."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

from influencerai.progress.text import visible

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MISSING = "\U0010fffd"
"""A character that no font has: what is drawn for it is drawn for every character that is missing."""
_PROBE_SIZE = 16
_SUFFIXES = (".ttf", ".otf", ".ttc")
_PLACEHOLDERS = "LastResort"
"""A font with the same box for every character of a script."""
_PREFERRED = ("DejaVuSans.", "NotoSans-Regular", "NotoSansCJK-Regular", "NotoSans", "wqy", "Unifont", "Arial Unicode")


def lettering(text: str, *, size: int) -> tuple[Font, str]:
    """A font that has every character of `text`, and the text.

    Characters that no font of this machine has become escapes such as `\\u9b54`.
    """
    text = " ".join(visible(text).split())
    wanted = frozenset(text) - {" "}
    path, missing = _best_font(wanted)
    shown = "".join(_escape(character) if character in missing else character for character in text)
    return (ImageFont.truetype(path, size) if path else ImageFont.load_default(size)), shown


def text_width(text: str, *, size: int) -> int:
    """Pixels of the text in one line."""
    font, shown = lettering(text, size=size)
    return math.ceil(font.getlength(shown))


def wrapped(text: str, *, size: int, width: int, lines: int) -> tuple[Font, list[str]]:
    """A font for the text, and the text in at most `lines` lines of at most `width` pixels, cut off with `...`."""
    font, shown = lettering(text, size=size)
    if not shown:
        return font, []
    found: list[str] = []
    for word in _parts(shown, font=font, width=width):
        if found and font.getlength(f"{found[-1]}{word}".rstrip()) <= width:
            found[-1] += word
        elif len(found) < lines:
            found.append(word)
        else:
            found[-1] = _cut(f"{found[-1].rstrip()} {word}", font=font, width=width)
            break
    return font, [line.rstrip() for line in found]


def write(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], *, at: tuple[int, int], font: Font, line: int, fill: str
) -> None:
    """Write lines below each other, `line` pixels apart, from the left upper corner `at`."""
    left, top = at
    for index, text in enumerate(lines):
        draw.text((left, top + index * line), text, fill=fill, font=font)


def _parts(text: str, *, font: Font, width: int) -> list[str]:
    """Words with their spaces; a word wider than a line in pieces that fit, as scripts without spaces need."""
    parts: list[str] = []
    for word in text.split(" "):
        piece = ""
        for character in word:
            if piece and font.getlength(piece + character) > width:
                parts.append(piece)
                piece = ""
            piece += character
        parts.append(f"{piece} ")
    return parts


def _cut(text: str, *, font: Font, width: int) -> str:
    """The beginning of `text` with `...`, in `width` pixels."""
    while text and font.getlength(f"{text.rstrip()}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


@cache
def _best_font(wanted: frozenset[str]) -> tuple[Path | None, frozenset[str]]:
    """The first font that lacks fewest of these characters, and what it lacks; None is Pillow's own."""
    best: Path | None = None
    missing = _lacking(ImageFont.load_default(_PROBE_SIZE), wanted)
    for path in _font_files() if missing else ():
        try:
            lacking = _lacking(ImageFont.truetype(path, _PROBE_SIZE), wanted)
        except (OSError, ValueError):  # a bitmap font of other sizes, or a damaged file
            continue
        if len(lacking) < len(missing):
            best, missing = path, lacking
        if not missing:
            break
    return best, missing


def _lacking(font: Font, wanted: frozenset[str]) -> frozenset[str]:
    absent = _drawn(font, _MISSING)
    return frozenset(character for character in wanted if _drawn(font, character) == absent)


def _drawn(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


@cache
def _font_files() -> tuple[Path, ...]:
    """matplotlib's and the system's fonts, those with many scripts first."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    folders = [home / "fonts", Path.home() / ".fonts", Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
    folders += [Path("/System/Library/Fonts"), Path("/Library/Fonts")]
    if (found := importlib.util.find_spec("matplotlib")) and found.origin:
        folders.insert(0, Path(found.origin).parent / "mpl-data" / "fonts" / "ttf")
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    return tuple(sorted((path for path in files if not path.name.startswith(_PLACEHOLDERS)), key=_rank))


def _rank(path: Path) -> int:
    ranks = [index for index, name in enumerate(_PREFERRED) if path.name.startswith(name)]
    return min(ranks, default=len(_PREFERRED))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
