"""Search paths of base models on this machine (aliases, models folders, paths), and their ids on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from influencerai.basemodel.weight_file import PICKLE_SUFFIXES, pickle_error

WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Alias:
    """A short name of a well-known model: its hub id, and the names that people give its files."""

    hub_id: str
    places: tuple[str, ...]


ALIASES = {
    "sd15": Alias(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        (
            "sd15",
            "sd15.safetensors",
            "v1-5-pruned-emaonly.safetensors",
            "v1-5-pruned.safetensors",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "runwayml/stable-diffusion-v1-5",
        ),
    ),
    "sdxl": Alias(
        "stabilityai/stable-diffusion-xl-base-1.0",
        (
            "sdxl",
            "sdxl.safetensors",
            "sd_xl_base_1.0.safetensors",
            "stabilityai/stable-diffusion-xl-base-1.0",
            "stabilityai/stable-diffusion-xl-base-1.0/sd_xl_base_1.0.safetensors",
        ),
    ),
}

_KNOWN_NAMES = (*ALIASES, "influencerai/tiny-avatars")
_HUB_ID = re.compile(r"[A-Za-z0-9]([\w.-]{0,94}\w)?/[A-Za-z0-9]([\w.-]{0,94}\w)?", re.ASCII)
_NO_HUB_ID = ("--", "..")


def hub_id_of(name: str) -> str | None:
    """The hub id that an alias stands for, or `name` where it has the form of one."""
    if name in ALIASES:
        return ALIASES[name].hub_id
    if not _HUB_ID.fullmatch(name) or any(text in name for text in _NO_HUB_ID):
        return None
    return None if name.endswith((WEIGHTS, ".git", *PICKLE_SUFFIXES)) else name


def candidates(name: str, models_dirs: Sequence[Path], *, as_path: bool = True) -> Iterator[Path]:
    """Where `name` is looked for, in order: the models folders, then, with `as_path`, `name` as a path.

    Without `as_path` nothing outside of the models folders is: only plain names and hub ids have candidates.
    """
    if name in ALIASES:
        yield from (folder / place for folder in models_dirs for place in ALIASES[name].places)
        return
    if not as_path and not hub_id_of(name) and (Path(name).name != name or name == ".."):
        return
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # `~somebody`, who has no home here
        path = Path(name)
    if not path.is_absolute():
        for folder in models_dirs:
            yield folder / path
            if not name.endswith(WEIGHTS):
                yield folder / (name + WEIGHTS)
    if as_path:
        yield path


def find_local(name: str, models_dirs: Sequence[Path], *, as_path: bool = True) -> Path | None:
    """The folder or file that `name` stands for, or None.

    Raises:
        ModelError: only a pickle of that name is there.
    """
    looked = list(candidates(name, models_dirs, as_path=as_path))
    for path in looked:
        if _exists(path):
            return path
    for path in looked:
        for suffix in sorted(PICKLE_SUFFIXES):
            if _exists(pickle := path.parent / (path.name.removesuffix(WEIGHTS) + suffix)):
                raise pickle_error(pickle)
    return None


def by_hand(hub_id: str | None, models_dirs: Sequence[Path]) -> str:
    """Instructions for installing a model by hand."""
    folder = models_dirs[0] if models_dirs else Path("models")
    place = f"{folder / hub_id} (the diffusers folder: model_index.json and its folders)" if hub_id else f"{folder}"
    singles = [
        f"{folder / name}{WEIGHTS} (its single file)" for name, alias in ALIASES.items() if alias.hub_id == hub_id
    ]
    return (
        f"Copy the model to {' or '.join([place, *singles])} on each machine that trains, or give the path of a "
        f".safetensors file. With network, `influencerai models get` does it. "
        f"Names that are known: {', '.join(_KNOWN_NAMES)} (which comes with the package)."
    )


def _exists(path: Path) -> bool:
    """Whether a file or a folder with something in it is there; a name that no file can have is not."""
    try:
        return path.is_file() or (path.is_dir() and any(path.iterdir()))
    except OSError:
        return False
