"""Output path: the folder of a run's files and their stem, from a config's outputPath and name."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from influencerai.domain.lora_config import LoraConfig

RUN_MARKER = ".influencerai-run"
"""File in an output folder that holds the id of the run the folder belongs to."""

DEFAULT_FOLDER = "data/loras"
_SUFFIX = ".safetensors"
_LONGEST_PART = 200
"""Bytes; a file system takes 255, and `-epoch-1000.safetensors` and a temporary file's suffix are added."""
_RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
"""Names that Windows gives no file and no folder."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def output_path(config: LoraConfig) -> str:
    """The config's output folder, or the default that its name gives."""
    path = (config.output_path or f"{DEFAULT_FOLDER}/{name_slug(config.name)}").rstrip("/")
    return path.removesuffix(_SUFFIX)


def output_path_of_run(config: LoraConfig, *, output_name: str) -> str:
    """The output folder of a run whose files are called `output_name`.

    Runs of earlier versions have other default folders: names gave other slugs.
    """
    return output_path(config) if config.output_path else f"{DEFAULT_FOLDER}/{output_name}"


def output_name(config: LoraConfig) -> str:
    """The stem of the run's files: the last part of the output path."""
    return last_part(output_path(config)) or name_slug(config.name)


def check_output_name(name: str) -> str:
    """The stem of a run's files, returned unchanged.

    Raises:
        ValueError: no file can have this name.
    """
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise ValueError(f"{name!r} cannot be the name of a file.")
    return name


def last_part(path: str) -> str:
    """The name that an output path ends in, without the suffix; empty where it ends in none."""
    return PurePosixPath(path).name.removesuffix(_SUFFIX)


def check_output_path(path: str) -> None:
    """Refuse an output path that no run could write to. Empty stands for the default; absolute paths are allowed.

    Raises:
        ValueError: says what is allowed.
    """
    if _UNPRINTABLE.search(path):
        raise ValueError("Control characters and halves of surrogate pairs are not allowed in a path")
    name = last_part(path)
    if path and (name.strip() in ("", ".", "..") or len(name.encode()) > _LONGEST_PART):
        raise ValueError(
            f"The last part names the files: without {_SUFFIX} it should be 1 to {_LONGEST_PART} bytes, and not '..'"
        )


def name_slug(name: str) -> str:
    """The slug of a config's name; `lora` for one without letters and digits, with its hash unless it is ASCII."""
    number = "" if name.isascii() else f"-{name_digest(name)}"
    found = slug(name, default=f"lora{number}")
    return f"{found}-lora" if _RESERVED.fullmatch(found) else found


def name_digest(name: str) -> str:
    """8 digits that tell the name apart from others with the same slug, in every Unicode form and case."""
    return hashlib.sha256(folded_name(name).encode(errors="replace")).hexdigest()[:8]


def folded_name(name: str) -> str:
    """The name without what does not make another of it: Unicode form, case, and how much space is where."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def slug(text: str, *, default: str, longest: int = 200) -> str:
    """Lower-case letters and digits of any script, and dashes, in at most `longest` bytes of UTF-8.

    Latin letters lose their accents; other scripts keep their marks, without which their letters are others.
    `default` stands for a text without letters and digits.
    """
    kept: list[str] = []
    base = ""
    lowered = unicodedata.normalize("NFKD", text).lower()
    for character in unicodedata.normalize("NFKD", lowered):
        kind = unicodedata.category(character)[0]
        if kind == "M":
            if base.isascii():
                continue
        else:
            base = character
        kept.append(character if kind in "LNM" else "-")
    composed = unicodedata.normalize("NFC", "".join(kept))
    found = re.sub(r"-+", "-", composed).strip("-")
    return found.encode()[:longest].decode(errors="ignore").strip("-") or default
