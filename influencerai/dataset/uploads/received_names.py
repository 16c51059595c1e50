"""Received names: file names as other programs send them, read as the paths that they mean, and made storable."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from email.errors import HeaderParseError
from email.header import decode_header
from pathlib import PurePosixPath
from urllib.parse import unquote

from influencerai.dataset.file_names import name_key
from influencerai.errors import DatasetError

MAX_NAME_BYTES = 240
"""Of one part of a path; a file system takes 255, and some of ours are a little longer than the user's."""
MAX_PATH_BYTES = 1000
MAX_PARTS = 16

_ENCODED_WORDS = re.compile(r"(=\?[\w.+-]+\?[bBqQ]\?[^?]*\?=\s*)+")
_DRIVE = re.compile(r"^[A-Za-z]:/")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_DECODINGS = 3
_DIGEST_CHARS = 8
_LONGEST_SUFFIX = 16
_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"}
)
_REMEDY = "Rename the file."


def received_path(name: str) -> str:
    """The path that a name from elsewhere means, relative, with forward slashes, spelled as it came.

    Encoded words (RFC 2047, as .NET sends them) are decoded, and backslashes are separators. Of an absolute path and of
    one that leads upwards only the last part counts.

    Raises:
        DatasetError: there is no name, or one that systems read in two ways.
    """
    if _ENCODED_WORDS.fullmatch(name):
        name = _decoded_words(name)
    if "\0" in name:
        raise DatasetError("The name holds a NUL.", remedy=_REMEDY)
    path = name.replace("\\", "/")
    if path.endswith("/"):
        raise DatasetError("The file has no name.", remedy=_REMEDY)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or _DRIVE.match(path) or ".." in parts:
        parts = parts[-1:]
    if not parts or parts[-1] == "..":
        raise DatasetError("The file has no name.", remedy=_REMEDY)
    return "/".join(parts)


def storable_path(path: str) -> str:
    """The path under which a file is stored: each part fit for any system, and the same for every spelling of it.

    Names stay in pairs: whatever changes the stem of a caption changes that of its picture. Leading dots stay.

    Raises:
        DatasetError: the path is too long, or a percent escape hides a separator.
    """
    parts = path.split("/")
    stored = "/".join([*(_storable(part) for part in parts[:-1]), _storable(parts[-1], is_file=True)])
    if len(parts) > MAX_PARTS or len(stored.encode()) > MAX_PATH_BYTES:
        raise DatasetError(
            f"The path has more than {MAX_PARTS} parts or {MAX_PATH_BYTES:,} bytes.", remedy="Use fewer folders."
        )
    return stored


def shown(name: str) -> str:
    """A name from elsewhere, fit for an error."""
    return "".join(char if char.isprintable() else "\ufffd" for char in name[:MAX_NAME_BYTES])


def split_suffix(name: str) -> tuple[str, str]:
    """(stem, suffix) of the last part; a suffix that is too long for one belongs to the stem."""
    suffix = PurePosixPath(name).suffix
    return (name, "") if len(suffix.encode()) > _LONGEST_SUFFIX else (name.removesuffix(suffix), suffix)


def _storable(part: str, *, is_file: bool = False) -> str:
    text = _unescaped(part)
    text = name_key(unicodedata.normalize("NFC", text))
    text = "".join(char if char.isprintable() else "_" for char in text).rstrip(". ")
    if _DRIVE.match(f"{text}/"):
        text = f"{text[0]}_"
    stem, suffix = split_suffix(text) if is_file else (text, "")
    if stem.split(".")[0].rstrip().upper() in _DEVICES:
        stem = f"_{stem}"
    if not stem or len(stem.encode()) > MAX_NAME_BYTES - _LONGEST_SUFFIX:
        stem = _shortened(stem)
    return f"{stem}{suffix}"


def _shortened(stem: str) -> str:
    """The beginning of a name, and a digest of all of it."""
    digest = hashlib.sha256(stem.encode()).hexdigest()[:_DIGEST_CHARS]
    kept = stem.encode()[: MAX_NAME_BYTES - _LONGEST_SUFFIX - _DIGEST_CHARS - 1].decode(errors="ignore")
    return f"{kept.rstrip('. ')}-{digest}" if kept else digest


def _unescaped(part: str) -> str:
    for _ in range(_DECODINGS):
        if not _ESCAPE.search(part):
            return part
        part = unquote(part, errors="replace")
        if any(char in part for char in "/\\\0") or part in (".", ".."):
            raise DatasetError("The name holds a percent escape of a separator.", remedy=_REMEDY)
    return part.replace("%", "_")


def _decoded_words(name: str) -> str:
    try:
        return "".join(
            text if isinstance(text, str) else text.decode(charset or "ascii") for text, charset in decode_header(name)
        )
    except (HeaderParseError, LookupError, ValueError):
        return name
