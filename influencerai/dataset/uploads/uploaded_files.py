"""Uploaded files: captions that are written, and files that are removed, in a dataset folder; by their manifest."""

from __future__ import annotations

import contextlib
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from influencerai.dataset.folder import list_folder, read_head
from influencerai.dataset.formats import FORMATS, sniff
from influencerai.dataset.uploads.manifest import MANIFEST, check_beneath, read_manifest, refusals, sha256
from influencerai.dataset.uploads.received_names import shown
from influencerai.dataset.uploads.staging import Staging, clear_leftovers, has_traces, locked, remove_traces
from influencerai.errors import DatasetError, NotFoundError, ValidationError
from influencerai.files import beneath

MAX_CAPTION_LENGTH = 4096


def write_caption(folder: Path, image: str, text: str, *, max_length: int = MAX_CAPTION_LENGTH) -> None:
    """Write the caption file of one image, or remove it where `text` is empty.

    Args:
        folder: the dataset folder, resolved.
        image: path of the image, relative to the folder.
        text: the caption; lines are joined when it is read.
        max_length: characters.

    Raises:
        NotFoundError: the folder has no such image.
        ValidationError: the text cannot be a caption, or something other than a file has the caption's name.
        InfluencerAIError: the file system refuses.
    """
    if not folder.is_dir() or image not in list_folder(folder).files or not is_image(folder, image):
        raise NotFoundError.of("Image", shown(image))
    name = str(PurePosixPath(image).with_suffix(".txt"))
    try:
        data = caption_bytes(text, max_length=max_length)
    except DatasetError as error:
        raise ValidationError(field_errors={"text": [str(error)]}) from error
    with Staging(folder) as staging, refusals(folder), locked(folder):
        try:
            present = digest_there(folder, name)
        except DatasetError as error:
            raise ValidationError(field_errors={"image": [str(error)]}) from error
        if text.strip():
            digest = staging.receive("text", [data])
            if digest != present:
                staging.place({name: ("text", digest)})
        elif present is not None:
            staging.remove(name)


def remove_uploaded(folder: Path) -> tuple[str, ...]:
    """Remove what came through the server and is still what came, and the folder if that leaves it empty.

    Files that were put there or changed by hand stay, so does an upload that is going on. Returns the paths of the
    removed files.

    Raises:
        InfluencerAIError: the file system refuses; calling it again goes on.
    """
    removed = []
    with refusals(folder):
        if not has_traces(folder):
            return ()
        with locked(folder):
            clear_leftovers(folder)
            for name, digests in sorted(read_manifest(folder).items()):
                check_beneath(folder, name)
                if stat.S_ISREG(_mode(folder, name)) and sha256(folder, name) in digests.split():
                    beneath.unlink(folder, name)
                    removed.append(name)
            for parent in _parents(removed):
                with contextlib.suppress(OSError):  # It is not empty.
                    beneath.remove_folder(folder, parent)
            beneath.unlink(folder, MANIFEST)
            remove_traces(folder)
    with contextlib.suppress(OSError):  # It is not empty, or not ours to remove.
        folder.rmdir()
    return tuple(removed)


def caption_bytes(text: str, *, max_length: int) -> bytes:
    """A caption as it is written; raises DatasetError where the text cannot be one."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise DatasetError("The caption is not UTF-8.", remedy="Save it as UTF-8.") from error
    if len(text) > max_length:
        raise DatasetError(f"The caption is longer than {max_length:,} characters.", remedy="Shorten it.")
    check_caption(text)
    return data


def check_caption(text: str) -> None:
    """Raise DatasetError where a text cannot be a caption."""
    if any(unicodedata.category(char) == "Cc" and char not in "\t\r\n" for char in text):
        raise DatasetError("The caption holds a control character.", remedy="Remove it.")


def digest_there(folder: Path, name: str) -> str | None:
    """The SHA-256 of a file that is there; None where there is none; raises DatasetError for a link or a folder."""
    try:
        mode = _mode(folder, name)
    except OSError as error:  # A part of the name is a link or a file.
        parent = str(PurePosixPath(name).parent)
        raise DatasetError(f"'{parent}' is no folder there.", remedy="Remove it, or rename the file.") from error
    if mode and not stat.S_ISREG(mode):
        raise DatasetError(f"'{name}' is a link or a folder there.", remedy="Remove it, or rename the file.")
    return sha256(folder, name) if mode else None


def _mode(folder: Path, name: str) -> int:
    """The mode of what has this name, links not followed; 0 where nothing has."""
    found = beneath.status(folder, name)
    return found.st_mode if found else 0


def _parents(names: Sequence[str]) -> list[str]:
    """The folders of these files, the innermost first."""
    found = {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}
    return sorted(found, key=lambda name: -name.count("/"))


def is_image(folder: Path, path: str) -> bool:
    """Whether a file of the folder is an image by content."""
    try:
        return sniff(read_head(folder / path, inside=folder)) in FORMATS
    except DatasetError:
        return False
