"""Sample sets: a character's images and captions, written into a folder."""

from __future__ import annotations

from pathlib import Path

from influencerai.demo.characters import list_characters, write_character
from influencerai.errors import DatasetError, ValidationError


def choose_character(name: str | None) -> str:
    """The character of this name, or the first one.

    Raises:
        ValidationError: there is no such character.
    """
    names = list_characters()
    if name is not None and name not in names:
        raise ValidationError(f"There is no sample character '{name}'.", remedy=f"There are: {', '.join(names)}.")
    return name or names[0]


def write_sample_set(character: str, *, folder: Path) -> int:
    """Write a character's images and captions into `folder`; returns how many images.

    Raises:
        DatasetError: `folder` has other images, which would be trained on too, or cannot be written to.
    """
    others = [path.name for path in folder.glob("*.png") if not path.name.startswith(f"{character}_")]
    if others:
        raise DatasetError(
            f"{folder} holds pictures that are not of '{character}', such as {min(others)}.",
            remedy="Name a new folder.",
        )
    try:
        return len(write_character(character, folder))
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be written: {error.strerror or error}.", remedy="Name a folder that you may write to."
        ) from error
