"""The embedded base model and the sample characters, as files of the installed package."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from influencerai.errors import DatasetError

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

    Other files in `out_dir` stay.

    Raises:
        DatasetError: files of the set are there with another content, or as links; nothing is written then.
    """
    if name not in list_characters():
        raise ValueError(f"there is no sample character {name!r}; there are {', '.join(list_characters())}")
    if changed := changed_files(name, out_dir):
        raise DatasetError(
            f"{out_dir} holds files of '{name}' that were changed, which stay as they are: {', '.join(changed)}.",
            remedy="Delete them, or name a new folder.",
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    for source in sorted((_sets_folder() / name).iterdir()):
        _copy(source, out_dir / source.name)
    return sorted(out_dir / source.name for source in (_sets_folder() / name).glob("*.png"))


def changed_files(name: str, out_dir: Path) -> list[str]:
    """Files of a sample set that `out_dir` has with another content, or as links; their names, sorted."""
    pairs = [(source, out_dir / source.name) for source in sorted((_sets_folder() / name).iterdir())]
    return [
        target.name
        for source, target in pairs
        if target.is_symlink()
        or (target.exists() and not (target.is_file() and target.read_bytes() == source.read_bytes()))
    ]


def _copy(source: Path, target: Path) -> None:
    """Appear whole or not at all; `artifacts` does the same, and is no room for this one to import."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)  # of an interrupted copy
    with temporary.open("xb") as file:
        file.write(source.read_bytes())
    temporary.replace(target)


def _sets_folder() -> Path:
    return _package_folder() / "characters"


def _package_folder() -> Path:
    return Path(str(files("influencerai.demo")))
