"""Names: dataset folder, base model and output folder, checked in milliseconds, before any picture is read."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influencerai.basemodel import BaseModel, find_base_model
from influencerai.basemodel.search import ALIASES, find_local, hub_id_of
from influencerai.domain import LoraConfig
from influencerai.errors import (
    CheckpointError,
    DatasetError,
    ExportError,
    InfluencerAIError,
    ModelError,
)
from influencerai.settings import Settings


def name_faults(
    config: LoraConfig, dataset_dir: Path, *, settings: Settings, output_dir: Path | None
) -> list[InfluencerAIError]:
    """Every reason why a training would end before it reads a picture: its folder, base model or output folder.

    `output_dir` is where the run would write; None where that is not known yet.
    """
    faults: list[InfluencerAIError] = []
    with noted(faults):
        check_folder(dataset_dir)
    with noted(faults):
        find_model(config.model_name, settings=settings, as_path=True, warnings=[])
    with noted(faults):
        if output_dir is not None:
            check_writable(output_dir)
    with noted(faults):
        if output_dir is not None:
            _check_record_place(settings.root)
    with noted(faults):
        if output_dir is not None:
            _check_cache_place(settings.cache_dir)
    return faults


@contextmanager
def noted(faults: list[InfluencerAIError]) -> Iterator[None]:
    """Append errors that a run would fail with to `faults`."""
    try:
        yield
    except InfluencerAIError as error:
        faults.append(error)
    except OSError as error:
        faults.append(InfluencerAIError(str(error)))


def check_folder(dataset_dir: Path) -> None:
    """Refuse a dataset that is not a folder.

    Raises:
        DatasetError: in the words of the inspection.
    """
    if not dataset_dir.exists():
        raise DatasetError(f"{dataset_dir} cannot be trained on: The folder does not exist. Check the path.")
    if not dataset_dir.is_dir():
        raise DatasetError(
            f"{dataset_dir} cannot be trained on: This is a file. Name the folder that holds the images."
        )


def find_model(name: str, *, settings: Settings, as_path: bool, warnings: list[str]) -> BaseModel | None:
    """The base model on this machine; None, with a warning appended, where the run would download it.

    Raises:
        ModelError: the run would fail on it.
    """
    folders = settings.models_dirs
    try:
        return find_base_model(name, models_dirs=folders, as_path=as_path)
    except ModelError:
        if not settings.allow_downloads or not hub_id_of(name) or find_local(name, folders, as_path=as_path):
            raise
    warnings.append(
        f"The base model '{name}' is not whole on this machine: the job downloads it first. Whether the hub has it "
        "and it can be used is not known yet."
    )
    return None


def alias_family(name: str) -> str | None:
    """The family of a well-known model by its alias or hub id, for one that is not here yet."""
    return next((alias for alias, known in ALIASES.items() if name in (alias, known.hub_id)), None)


def check_writable(folder: Path) -> None:
    """Refuse an output folder that takes no files, or cannot be made because its nearest parent takes none.

    Raises:
        ExportError: names the folder and the reason.
    """
    with _refused(ExportError, f"The output folder {folder} cannot be made", remedy="Choose another outputPath."):
        probe(folder)


def _check_record_place(root: Path) -> None:
    """Refuse a root in which no run can be recorded.

    Raises:
        CheckpointError: names the folder and the reason.
    """
    folder = root / ".influencerai" / "runs"
    remedy = "Choose a root that you may write to: INFLUENCERAI_ROOT, by default the current directory."
    with _refused(CheckpointError, f"{folder} cannot be written", remedy=remedy):
        probe(folder)


def _check_cache_place(folder: Path) -> None:
    """Refuse a cache in which no encoded picture can be kept.

    Raises:
        CheckpointError: names the folder and the reason.
    """
    remedy = "Choose a folder that you may write to: INFLUENCERAI_CACHE_DIR, by default below the root."
    with _refused(CheckpointError, f"The cache {folder} cannot be written", remedy=remedy):
        probe(folder)


@contextmanager
def _refused(kind: type[InfluencerAIError], text: str, *, remedy: str) -> Iterator[None]:
    """Raise an error of `kind` for what the file system refuses in the block."""
    try:
        yield
    except OSError as error:
        raise kind(f"{text}: {error.strerror or error}.", remedy=remedy) from error


def probe(folder: Path) -> None:
    """Write a nameless file into the folder, or into the nearest parent that exists.

    Raises:
        OSError: it takes no files.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    with tempfile.TemporaryFile(dir=nearest):
        pass
