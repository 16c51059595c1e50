"""Snapshot: a job's images as they were when it was prepared, shared by content, and what a finished job gives back."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from influencerai.dataset.folder import read_file
from influencerai.dataset.image_file import MAX_FILE_BYTES
from influencerai.domain import SampleSpec, TrainingSpec
from influencerai.errors import DatasetError
from influencerai.files import atomic_file, file_system
from influencerai.files.beneath import shown_path

DATASET_FOLDER = "dataset"
LEFTOVER_SECONDS = 900.0
"""A temporary file that nobody touched for so long is no other attempt's."""
_LINK_ATTEMPTS = 5


def take_snapshot(
    spec: TrainingSpec,
    source: Path,
    *,
    run_dir: Path,
    blobs_dir: Path,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Copy the spec's images from the user's folder into `blobs_dir`, and link them into the run's dataset folder.

    Users edit files in place, so the images are copied, once per content. Captions are in the spec. `check` is
    called between images, and may raise. Returns the dataset folder.

    Raises:
        DatasetError: an image is not the one that was inspected any more.
        InfluencerAIError, OSError: the file system refuses.
    """
    for sample in spec.samples:
        check()
        blob = _blob(blobs_dir, sample.sha256)
        for _ in range(_LINK_ATTEMPTS):
            if not blob.exists():
                atomic_file.write_atomic(blob, _inspected(source, sample))
            with suppress(FileNotFoundError):  # another job has just released the blob
                if (mode := blob.stat().st_mode) & 0o222:
                    file_system.set_mode(blob, mode & 0o555)  # whoever may not read it now never may
                _link(blob, run_dir / DATASET_FOLDER / sample.path)
                break
        else:
            raise DatasetError(f"The copy of {sample.path} in {blob} disappears.", remedy="Start the job again.")
    return run_dir / DATASET_FOLDER


def restore_snapshot(spec: TrainingSpec, *, run_dir: Path, blobs_dir: Path) -> Path:
    """Make sure that the run's dataset folder holds the spec's images; returns it.

    Raises:
        DatasetError: an image is neither there nor in `blobs_dir`.
        OSError: the file system refuses.
    """
    folder = run_dir / DATASET_FOLDER
    for sample in spec.samples:
        link, blob = folder / sample.path, _blob(blobs_dir, sample.sha256)
        if _same_file(link, blob) or _has_content(link, sample.sha256):
            continue
        try:
            _link(blob, link)
        except FileNotFoundError as error:
            raise DatasetError(
                f"The job's copy of {sample.path} is gone.", remedy="Start a new job on the dataset."
            ) from error
    return folder


def release_snapshot(run_dir: Path, blobs_dir: Path | None) -> None:
    """Remove the run's dataset folder, every blob of it that no other run links, and what interrupted writes left.

    Without `blobs_dir` there are no blobs.

    Raises:
        OSError: the file system refuses.
    """
    folder = run_dir / DATASET_FOLDER
    blobs: set[Path] = set()
    if blobs_dir is not None:
        blobs = {_blob(blobs_dir, atomic_file.sha256_file(path)) for path in folder.rglob("*") if path.is_file()}
    if folder.exists():
        shutil.rmtree(folder)
    for blob in blobs:
        with suppress(FileNotFoundError):
            if blob.stat().st_nlink == 1:
                blob.unlink()
        atomic_file.remove_leftovers(blob.parent, older_than=LEFTOVER_SECONDS)


def discard_states(run_dir: Path, output_dir: Path | None = None) -> None:
    """Delete a finished run's resumable states, and what interrupted writes left in its folders.

    Only once its result is safe: nothing can be resumed afterwards, and an attempt that still runs fails.

    Raises:
        OSError: the file system refuses.
    """
    for state in run_dir.glob("state-*.safetensors"):
        state.unlink(missing_ok=True)
    for folder in (run_dir, output_dir):
        if folder is not None:
            atomic_file.remove_leftovers(folder)


def _inspected(source: Path, sample: SampleSpec) -> bytes:
    """The bytes of the user's image, which are those of the spec."""
    path = shown_path(source) / sample.path
    try:
        data = read_file(source / sample.path, limit=MAX_FILE_BYTES, inside=source)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error.message}", remedy=error.remedy) from error
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        raise DatasetError(
            f"{path} changed while the job was being prepared.", remedy="Start the job again when the folder is ready."
        )
    return data


def _blob(blobs_dir: Path, sha256: str) -> Path:
    return blobs_dir / sha256[:2] / sha256


def _link(blob: Path, target: Path) -> None:
    """Make `target` a hard link to the blob, or a copy where the file system has none.

    No symbolic link: readers refuse one that leaves the dataset folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        file_system.link_or_copy(blob, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # it is still there when `target` was that very link before


def _same_file(path: Path, blob: Path) -> bool:
    try:
        return path.samefile(blob)
    except OSError:
        return False


def _has_content(path: Path, sha256: str) -> bool:
    try:
        return atomic_file.sha256_file(path) == sha256
    except FileNotFoundError:
        return False
