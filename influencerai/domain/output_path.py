"""Output path: the folder of a run's files and their stem, from a config's outputPath and name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from influencerai.domain.lora_config import LoraConfig

_SUFFIX = ".safetensors"


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


def slug(text: str, *, default: str, longest: int = 200) -> str:
    """Lower-case letters, digits and dashes; `default` where nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest] or default
