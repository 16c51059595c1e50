"""The LoRA file that a run is to start with: found, and refused where it cannot be, without torch."""

from __future__ import annotations

from pathlib import Path

from influencerai.errors import CheckpointError, ModelError
from influencerai.lora.adapter_file import APPLIED_KINDS, read_adapter
from influencerai.train.runs.folder import SPEC_FILE, RunFolder

_PLACES = "Name a LoRA's .safetensors file, a run's output folder, or its folder in .influencerai/runs."


def choose_first_weights(path: Path, *, root: Path, rank: int) -> Path:
    """The LoRA file that `path` names: itself, the final one of an output folder, or that of a run's folder.

    Raises:
        CheckpointError: there is none or more than one, it is no LoRA that can be trained on, or of another rank.
    """
    file = _of_folder(path, root=root) if path.is_dir() else path
    try:
        found = read_adapter(file)
    except ModelError as error:
        raise CheckpointError(error.message, remedy=error.remedy) from error
    if found.kind not in APPLIED_KINDS:
        raise CheckpointError(
            f"{file} is a {found.kind}, and a training starts with a LoRA alone.", remedy="Start with a new adapter."
        )
    if found.ranks != (rank,):
        ranks = ", ".join(str(number) for number in found.ranks)
        raise CheckpointError(
            f"{file} has another rank than the run: networkDim {ranks} -> {rank}.",
            remedy=f"Set networkDim to {ranks}, or start with a new adapter."
            if len(found.ranks) == 1
            else "Start with a new adapter: the modules of a run have one rank.",
        )
    return file


def _of_folder(folder: Path, *, root: Path) -> Path:
    """The final file of the one run whose output folder or record `folder` is; else the only file that is there.

    Raises:
        CheckpointError: there is none, or more than one.
    """
    if (folder / SPEC_FILE).is_file():
        name = RunFolder(folder).result.get("loraPath")
        if not isinstance(name, str) or not (root / name).is_file():
            raise CheckpointError(
                f"{folder} is neither a LoRA file nor the folder of one finished run: it has no final file.",
                remedy="Resume that run with --resume, or name one of its files.",
            )
        return root / name
    files = sorted(folder.glob("*.safetensors"))
    found = [file for file in files if file.stem.endswith("-final")] or files
    if len(found) != 1:
        count = f"it holds {len(found)}, such as {found[0].name}" if found else "it holds no .safetensors file"
        raise CheckpointError(
            f"{folder} is neither a LoRA file nor the folder of one finished run: {count}.", remedy=_PLACES
        )
    return found[0]
