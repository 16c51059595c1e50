"""Text files: decodes texts that users wrote, in every encoding that editors call plain text.

UTF-8 with and without a byte order mark, UTF-16 and UTF-32 with one, UTF-16 without one, and Windows-1252.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_END = re.compile(r"[\0\x1a][\0\x1a\s]*\Z")
"""DOS ends a text with 0x1A, and programs fill a block up with that or with zeros."""
_SHARE_OF_LETTERS = 0.6
"""Of the bytes of a text in a Western 8-bit encoding more are ASCII letters or blanks; of UTF-16 about a fifth are."""


@dataclass(frozen=True)
class Text:
    """A decoded text. `is_guessed`: the bytes are not valid UTF-8 and have no mark of their encoding."""

    text: str
    encoding: str
    is_guessed: bool = False

    @property
    def warning(self) -> str | None:
        """A warning about the encoding, to follow the file's name; None where the encoding is certain."""
        return f"is not UTF-8 and is read as {self.encoding}." if self.is_guessed else None


def decode_text(data: bytes) -> Text:
    """The text of a file, without byte order and end marks.

    Never fails: bytes that fit no other encoding are read as Windows-1252.
    """
    found = _decode(data)
    text = found.text.removeprefix("\ufeff")  # a second mark, as joined files have it
    return replace(found, text=_END.sub("", text))


def read_text_file(path: Path, *, limit: int = 2**20) -> Text:
    """The text of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `limit` bytes.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        size = f"{limit / 2**20:g} MiB" if limit >= 2**20 else f"{limit:,} bytes"
        raise ValueError(f"it is larger than {size}")
    return decode_text(data)


def _decode(data: bytes) -> Text:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            rest = data[len(mark) :]
            if encoding.startswith("utf-16") and len(rest) % 2 and rest.endswith(b"\x1a"):
                rest = rest[:-1]
            return Text(rest.decode(encoding, "replace"), encoding.upper())
    if (filled := data.rstrip(b"\0\x1a")) != data and 0 not in filled and (text := _utf8(filled)) is not None:
        return Text(text, "UTF-8")
    if found := _utf16_by_zeros(data):
        return found
    if (text := _utf8(data)) is not None:
        return Text(text, "UTF-8")
    return _utf16_by_script(data) or Text(data.decode("cp1252", "replace"), "Windows-1252", is_guessed=True)


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _utf16_by_zeros(data: bytes) -> Text | None:
    """UTF-16 without a mark: ASCII in it, even a line's end, has a zero for every other byte."""
    if 0 not in data:
        return None
    found = [(text, name) for name in ("utf-16-le", "utf-16-be") if (text := _strict(data, name)) and _is_plain(text)]
    # The wrong one of the two has no ASCII, and letters of many alphabets.
    found.sort(key=lambda item: (-sum(char < "\x80" for char in item[0]), len({ord(char) >> 8 for char in item[0]})))
    return Text(found[0][0], found[0][1].upper()) if found else None


def _utf16_by_script(data: bytes) -> Text | None:
    """UTF-16 without a mark and without any ASCII: all of it is East Asian."""
    letters = sum(chr(byte).isalpha() or byte == 0x20 for byte in data if byte < 0x80)
    has_controls = any(byte < 0x20 and byte not in b"\t\r\n" for byte in data)
    if len(data) < 4 or (letters >= _SHARE_OF_LETTERS * len(data) and not has_controls):
        return None
    little, big = _strict(data, "utf-16-le"), _strict(data, "utf-16-be")
    if little and all(_is_kana_or_han(char) or "\uac00" <= char <= "\ud7a3" for char in little):
        return Text(little, "UTF-16-LE", is_guessed=True)
    # Shift JIS read as big-endian is Han throughout, but never kana.
    if big and all(_is_kana_or_han(char) for char in big) and any("\u3000" <= char <= "\u30ff" for char in big):
        return Text(big, "UTF-16-BE", is_guessed=True)
    return None


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data[: len(data) // 2 * 2].decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_kana_or_han(char: str) -> bool:
    return "\u3000" <= char <= "\u30ff" or "\u4e00" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef"


def _is_plain(text: str) -> bool:
    """Whether all characters up to the end are assigned, and none controls but blanks."""
    found = _END.sub("", text)
    return all(char in "\t\r\n" or unicodedata.category(char) not in ("Cc", "Cn", "Co") for char in found)
