"""The embedded base model and the sample characters, as files of the installed package."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Final

MODEL_ID: Final = "influencerai/tiny-avatars"
"""Name of the embedded base model, in the form of a hub id."""


def model_path() -> Path:
    """The diffusers folder of the embedded base model."""
    return _package_folder() / "models" / MODEL_ID


def list_characters() -> list[str]:
    """Names of the sample characters, sorted."""
    return sorted(entry.name for entry in _sets_folder().iterdir() if entry.is_dir())


def write_character(name: str, out_dir: Path) -> list[Path]:
    """Copy a sample set (PNG pictures with `.txt` captions) into `out_dir`; returns the pictures, sorted.

    Files of the same name are overwritten, others in `out_dir` stay.
    """
    if name not in list_characters():
        raise ValueError(f"there is no sample character {name!r}; there are {', '.join(list_characters())}")
    out_dir.mkdir(parents=True, exist_ok=True)
    for source in sorted((_sets_folder() / name).iterdir()):
        shutil.copyfile(source, out_dir / source.name)
    return sorted(out_dir / source.name for source in (_sets_folder() / name).glob("*.png"))


def _sets_folder() -> Path:
    return _package_folder() / "characters"


def _package_folder() -> Path:
    return Path(str(files("influencerai.demo")))
