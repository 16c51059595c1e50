"""LoRA files that a command is given: files, and folders of runs with a choice of their checkpoints; without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from influencerai.errors import InfluencerAIError, ModelError
from influencerai.lora.description import LoraDescription, describe_lora
from influencerai.preflight import noted

_SECOND_LAYOUT = "pytorch_lora_weights.safetensors"
"""A run's final file once more, in the other layout."""


@dataclass(frozen=True, kw_only=True)
class LoraSource:
    """One LoRA file with its name beside the others."""

    path: Path
    label: str
    description: LoraDescription


def choose_loras(
    names: Sequence[str], *, root: Path, checkpoints: str | None, faults: list[InfluencerAIError]
) -> list[LoraSource]:
    """The LoRA files that `names` stand for: a file itself, of a run's folder the chosen checkpoints by epoch.

    `checkpoints` is `all`, `last` or epochs such as `1,5,10`. What cannot be used is appended to `faults`.
    """
    found: list[tuple[Path, LoraDescription]] = []
    folders = 0
    for name in names:
        with noted(faults):
            path = _place(name, root=root)
            if path.is_dir():
                folders += 1
                found += _of_folder(_output_folder(path, root=root), checkpoints=checkpoints or "all")
            else:
                found.append((path, describe_lora(path)))
    if checkpoints and not folders and not faults:
        raise click.UsageError("--checkpoints goes with the folder of a run.")
    unique = dict(found)
    return [
        LoraSource(path=path, label=label, description=unique[path])
        for path, label in zip(unique, _labels(unique), strict=True)
    ]


def choose_lora(name: str, *, root: Path) -> Path:
    """The one LoRA file that `name` stands for: a file itself, of a run's folder the last one.

    Raises:
        ModelError: it is not there, or the folder holds none.
    """
    path = _place(name, root=root)
    if not path.is_dir():
        return path
    return _of_folder(_output_folder(path, root=root), checkpoints="last")[0][0]


def named_lora(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """A click callback: refuse an empty name, as of an unset variable, which would be the root."""
    names = value if isinstance(value, tuple) else (value,)
    if any(name is not None and not name.strip() for name in names):
        raise click.BadParameter("The name of the LoRA is empty.", context, parameter)
    return value


def parse_checkpoints(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> str | None:
    """A click callback: refuse what is neither `all` nor `last` nor a list of epochs; the option may be repeated."""
    value = ",".join(values)
    if value in ("", "all", "last") or all(part.strip().isdecimal() for part in value.split(",")):
        return value or None
    raise click.BadParameter(f"'{value}' is neither all, last nor epochs such as 1,5,10.")


def _place(name: str, *, root: Path) -> Path:
    try:
        return root / Path(name).expanduser()
    except RuntimeError:  # `~somebody`, who has no home here
        return root / name


def _output_folder(path: Path, *, root: Path) -> Path:
    """The folder itself, or where the run wrote whose record the folder is."""
    from influencerai.train.runs.folder import RESULT_FILE, SPEC_FILE, RunFolder

    if not (path / SPEC_FILE).exists():
        return path
    lora = RunFolder(path).result.get("loraPath") if (path / RESULT_FILE).exists() else None
    if not isinstance(lora, str):
        raise ModelError(f"The run in {path} has no final file yet.", remedy="Name the folder that it writes to.")
    return (root / lora).parent


def _of_folder(folder: Path, *, checkpoints: str) -> list[tuple[Path, LoraDescription]]:
    """The chosen LoRA files of a folder in the order of their epochs, the final one last.

    Raises:
        ModelError: there is none, one cannot be read, or an epoch is not there.
    """
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        files = [file for file in files if file.name != _SECOND_LAYOUT]
    found = [(file, describe_lora(file)) for file in files]
    if not found:
        raise ModelError(f"{folder} holds no LoRA file.", remedy="Name a .safetensors file, or a run's output folder.")
    found.sort(key=lambda item: (item[1].epoch or 2**31, item[0].name))
    if checkpoints == "all":
        return found
    if checkpoints == "last":
        return found[-1:]
    wanted = dict.fromkeys(int(part) for part in checkpoints.split(","))
    by_epoch = {item[1].epoch: item for item in found}
    if missing := [str(epoch) for epoch in wanted if epoch not in by_epoch]:
        there = ", ".join(str(item[1].epoch) for item in found if item[1].epoch is not None)
        raise ModelError(
            f"{folder} has no file of epoch {', '.join(missing)}.",
            remedy=f"There are files of the epochs {there}." if there else "Its files do not name their epochs.",
        )
    return [by_epoch[epoch] for epoch in wanted]


def _labels(found: dict[Path, LoraDescription]) -> list[str]:
    """Epochs where all files are of one folder and tell theirs; else names, with their folders where they repeat."""
    epochs = [description.epoch for description in found.values()]
    if len(found) > 1 and None not in epochs and len(set(epochs)) == len(epochs):
        folders = {path.parent for path in found}
        stems = {path.stem.partition("-epoch-")[0].removesuffix("-final") for path in found}
        if len(folders) == len(stems) == 1:
            return [f"epoch {epoch}" for epoch in epochs]
    counts = Counter(path.stem for path in found)
    return [path.stem if counts[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in found]
