"""Output path: the folder of a run's files and their stem, from a config's outputPath and name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from influencerai.domain.lora_config import LoraConfig

RUN_MARKER = ".influencerai-run"
"""File in an output folder that holds the id of the run the folder belongs to."""

_SUFFIX = ".safetensors"
_LONGEST_PART = 200
"""Bytes; a file system takes 255, and `-epoch-1000.safetensors` and a temporary file's suffix are added."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def output_path(config: LoraConfig) -> str:
    """The config's output folder, or the default that its name gives."""
    path = (config.output_path or f"data/loras/{slug(config.name, default='lora')}").rstrip("/")
    return path.removesuffix(_SUFFIX)


def output_name(config: LoraConfig) -> str:
    """The stem of the run's files: the last part of the output path."""
    return last_part(output_path(config)) or slug(config.name, default="lora")


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


def slug(text: str, *, default: str, longest: int = 200) -> str:
    """Lower-case letters, digits and dashes; `default` where nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest] or default
