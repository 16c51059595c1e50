"""Text: numbers and strangers' words, as people may see them."""

from __future__ import annotations

import re
from pathlib import Path

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """The text with control characters as `\\x1b`, so that a name cannot steer the terminal; newline and tab stay."""
    return _CONTROL_CHARACTERS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def duration(seconds: float) -> str:
    """As `4:05` or `1:04:05`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def short_path(path: str | Path) -> str:
    """The path relative to the current directory if it is below it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)
