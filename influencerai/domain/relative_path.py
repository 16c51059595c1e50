"""RelativePath: a path as users name it, below a root that they do not see."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

LONGEST = 255
_LONGEST_PART = 255
"""Bytes that a file system takes."""
OWN_FOLDER = ".influencerai"
"""What a root holds of ours; no path that a user names leads there."""


def normalized(path: str) -> str:
    """`path` without `./` and trailing slashes.

    Raises:
        ValueError: it is absolute, leaves the root, or holds what a system could read in two ways.
    """
    for text, what in (("\\", "a backslash"), ("\0", "a NUL"), ("%", "a percent sign")):
        if text in path:
            raise ValueError(f"Path must not hold {what}")
    if not path.isprintable():
        raise ValueError("Path must not hold control characters")
    if path.startswith(("/", "~")) or path[1:2] == ":":
        raise ValueError("Path must be relative to the root")
    parts = PurePosixPath(path).parts
    if ".." in parts:
        raise ValueError("Path must not leave the root")
    if not parts or not all(part.strip() for part in parts):
        raise ValueError("Path must name a folder")
    if any(part.lower() == OWN_FOLDER for part in parts):
        raise ValueError(f"Path must not lead into {OWN_FOLDER}")
    if any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise ValueError(f"Each part of a path may have {_LONGEST_PART} bytes")
    return "/".join(parts)


def is_image_path(path: str) -> bool:
    """Whether this can be the path of an image in a dataset folder, of which no part is hidden."""
    parts = path.split("/")
    return "\0" not in path and not any(part == "" or part.startswith(".") for part in parts)


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST), AfterValidator(normalized)]
