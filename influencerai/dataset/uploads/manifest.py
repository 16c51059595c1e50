"""Manifest: which files of a dataset folder came through the server, with their hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from influencerai.errors import InfluencerAIError
from influencerai.files import beneath
from influencerai.files.beneath import shown_name

MANIFEST = ".influencerai-uploads.json"


def read_manifest(folder: Path) -> dict[str, str]:
    """{path in the folder: SHA-256} of the uploaded files.

    While an upload replaces a file the value holds two hashes, of the file before and after, separated by a space.

    Raises:
        InfluencerAIError: the file has another format.
    """
    try:
        with os.fdopen(beneath.open_file(folder, MANIFEST), "rb") as file:
            document = json.loads(file.read())
        return {str(name): str(digest) for name, digest in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InfluencerAIError(
            f"The list of uploaded files, {MANIFEST} in the dataset folder '{shown_name(folder)}', cannot be read.",
            remedy="Restore it, or remove it: its files then count as put there by hand.",
        ) from error


def manifest_bytes(manifest: Mapping[str, str]) -> bytes:
    """The content of the manifest file."""
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False).encode()


def sha256(folder: Path, name: str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; no link is followed."""
    with os.fdopen(beneath.open_file(folder, name), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_beneath(folder: Path, name: str) -> None:
    """Refuse a name that leads out of the dataset folder.

    Raises:
        InfluencerAIError: the manifest was not written by this program.
    """
    try:
        beneath.status(folder, name)
    except OSError as error:
        raise InfluencerAIError(f"'{name}' does not lie in the dataset folder '{shown_name(folder)}'.") from error


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turn an OSError into an InfluencerAIError that names the dataset folder without the path to it."""
    try:
        yield
    except OSError as error:
        raise InfluencerAIError(
            f"The dataset folder '{shown_name(folder)}' cannot be written: {error.strerror or error}.",
            remedy="Free space on its disk, and let the server's user write to it.",
        ) from error
