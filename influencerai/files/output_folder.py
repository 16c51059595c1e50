"""Output folders: reserved for one run by a marker, so that no run writes among the files of another."""

from __future__ import annotations

import errno
import glob
from pathlib import Path

from influencerai.domain.output_path import RUN_MARKER
from influencerai.errors import ExportError
from influencerai.files import file_system
from influencerai.files.atomic_file import write_atomic


def reserve_output(folder: Path, run_id: str, *, suffix: str | None = None) -> Path:
    """The output folder of a run: `folder`, or `<folder>-<suffix>` where that is taken.

    The suffix, by default the first 8 digits of `run_id`, should tell the run from others. A folder is taken when
    it carries another run's marker, or holds .safetensors files and no marker. The same run gets the same folder
    again.

    Raises:
        ExportError: both are taken, or neither can be made.
    """
    candidates = (folder, folder.with_name(f"{folder.name}-{suffix or run_id[:8]}"))
    for candidate in candidates:
        try:
            if _claim(candidate, run_id):
                return candidate
        except OSError as failure:
            raise ExportError(
                f"The output folder {candidate} cannot be made: {file_system.refusal(failure, folder.parent)}.",
                remedy="Choose another outputPath.",
            ) from failure
    raise ExportError(
        f"The output folders {candidates[0]} and {candidates[1]} hold the files of other runs.",
        remedy="Choose another outputPath.",
    )


def take_over_output(folder: Path, *, previous: str, run_id: str) -> Path | None:
    """Give the output folder of the run `previous` to the run that goes on from it; None where it has none."""
    found = find_output(folder, previous)
    if found is not None:
        write_atomic(found / RUN_MARKER, run_id.encode())
    return found


def find_output(folder: Path, run_id: str) -> Path | None:
    """The output folder that the run has: `folder`, or one beside it that an earlier run had; None where it has none.

    Raises:
        ExportError: the folder above cannot be listed.
    """
    try:
        beside = sorted(folder.parent.glob(f"{glob.escape(folder.name)}-*"))
        markers = [candidate / RUN_MARKER for candidate in (folder, *beside)]
        return next((path.parent for path in markers if path.is_file() and path.read_bytes() == run_id.encode()), None)
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:  # which no folder has
            return None
        raise ExportError(f"{folder.parent} cannot be read: {failure.strerror or failure}.") from failure


def release_output(folder: Path, run_id: str) -> None:
    """Give back the reservation of a run that has written no file."""
    marker = folder / RUN_MARKER
    if marker.exists() and marker.read_bytes() == run_id.encode() and not any(folder.glob("*.safetensors")):
        marker.unlink(missing_ok=True)


def _claim(folder: Path, run_id: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / RUN_MARKER
    if not marker.exists() and any(folder.glob("*.safetensors")):
        return False
    try:
        file_system.create_exclusively(marker, run_id.encode())
    except FileExistsError:
        return marker.read_bytes() == run_id.encode()
    return True
