"""The sample characters by the name that a user gives, or the first."""

from __future__ import annotations

from pathlib import Path

from influencerai.demo.characters import list_characters, write_character
from influencerai.errors import DatasetError, ValidationError


def write_sample_character(folder: Path, *, name: str | None) -> tuple[str, list[Path]]:
    """Write a character's pictures and captions into `folder`; returns its name and the pictures.

    Raises:
        ValidationError: there is no character of that name.
        DatasetError: `folder` cannot be written to.
    """
    names = list_characters()
    chosen = name or names[0]
    if chosen not in names:
        raise ValidationError(f"There is no sample character '{chosen}'.", remedy=f"There are: {', '.join(names)}.")
    try:
        return chosen, write_character(chosen, folder)
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be written: {error.strerror or error}.", remedy="Name a folder that you may write to."
        ) from error
