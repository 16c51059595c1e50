"""Job folders: a job's dataset and output folder, opened below the tenant's root.

Links below the root may have changed since the job was made, so every path is resolved again here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from influencerai.dataset.snapshot import LEFTOVER_SECONDS
from influencerai.domain.relative_path import OWN_FOLDER
from influencerai.errors import DatasetError, ExportError, InfluencerAIError
from influencerai.files import atomic_file, output_folder
from influencerai.files.beneath import pinned
from influencerai.job_process.messages import TrainingRequest


@contextmanager
def opened_dataset(request: TrainingRequest) -> Iterator[Path]:
    """The user's folder, pinned: it may be replaced by a link while it is read.

    Raises:
        DatasetError: it does not exist, is not a folder, or leads out of the root.
    """
    root = request.root.resolve()
    place = _below(request.root, request.dataset, error=DatasetError).resolve()
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(pinned(root, place.relative_to(root).as_posix()))
        except FileNotFoundError as error:
            text = f"{request.dataset} cannot be trained on: The folder does not exist."
            raise DatasetError(text, remedy="Check the path.") from error
        except (OSError, ValueError) as error:  # replaced by a link or a file since it was resolved
            raise DatasetError(f"{request.dataset} cannot be opened: it is not a folder.") from error
        yield folder


def reserve_output(request: TrainingRequest) -> tuple[Path, Path]:
    """Reserve the output folder of the job; returns the requested and the reserved one.

    Raises:
        ExportError: it leads out of the root, or no folder can be reserved.
    """
    requested = _below(request.root, request.output_dir, error=ExportError)
    reserved = output_folder.reserve_output(requested, request.job_id, suffix=request.job_id)
    atomic_file.remove_leftovers(reserved, older_than=LEFTOVER_SECONDS)
    return requested, reserved


def _below(root: Path, relative: str, *, error: type[InfluencerAIError]) -> Path:
    path = root / relative
    try:
        place, top = path.resolve(), root.resolve()
        leaves = not place.is_relative_to(top)
    except (OSError, RuntimeError) as failure:
        raise error(f"{relative} cannot be opened: {failure}.") from failure
    if leaves:
        raise error(f"{relative} leads out of the root.", remedy="Name a folder below it, without links out of it.")
    if OWN_FOLDER in (part.lower() for part in place.relative_to(top).parts):
        raise error(f"{relative} leads into {OWN_FOLDER}.", remedy="Name a folder beside it, without links into it.")
    return path
