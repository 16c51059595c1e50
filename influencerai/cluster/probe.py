"""Probe: what a node says of itself, asked by a task that runs there; and what keeps it from training."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from influencerai.scheduling.placement import Device

MARKERS = Path(".influencerai/cluster")
"""Below the root: where dispatchers and nodes show each other that they see the same folder."""
COMPARED = (
    "influencerai",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "bitsandbytes",
    "pytorch-optimizer",
    "numpy",
)
"""What decides the bytes of a training; another version would round, or fail, differently."""
_NEEDED = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DEPTH = 2
_SMI_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a process finds on its machine."""

    machine: str
    """The same for two processes only where they share the machine."""
    versions: Mapping[str, str]
    models: tuple[str, ...]
    devices: tuple[Device, ...]
    problem: str | None = None


def look(root: Path, models_dir: Path, marker: str, answer: str) -> Facts:
    """The facts of this machine, and whether it sees the marker of that name in the root; it leaves an answer there."""
    return Facts(
        machine=_machine(),
        versions=_versions(),
        models=_models(models_dir),
        devices=list_gpus(),
        problem=_answer(root / MARKERS, marker, answer),
    )


def own_facts(models_dir: Path) -> Facts:
    """The facts of the machine that others are compared with."""
    return Facts(machine=_machine(), versions=_versions(), models=_models(models_dir), devices=())


def differences(node: Facts, ours: Facts, *, needs_one_machine: bool) -> list[str]:
    """What keeps a node from training, as sentences; `needs_one_machine` where the database is a file."""
    found = [] if node.problem is None else [node.problem]
    if needs_one_machine and node.machine != ours.machine:
        found.append("The database is SQLite, which works on one machine: use Postgres (--database-url).")
    for name in COMPARED:
        theirs, wanted = node.versions.get(name), ours.versions.get(name)
        if theirs is None and name in _NEEDED:
            found.append(f"{name} is not installed.")
        elif wanted is not None and theirs is not None and theirs != wanted:
            found.append(f"{name} is {theirs}, not {wanted}.")
    if node.versions["python"] != ours.versions["python"]:
        found.append(f"Python is {node.versions['python']}, not {ours.versions['python']}.")
    if missing := sorted({*ours.models} - {*node.models}):
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        found.append(f"Base models are missing: {shown}.")
    return found


def _machine() -> str:
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return f"{socket.gethostname()} {boot}"


def _versions() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in COMPARED:
        with suppress(PackageNotFoundError):
            found[name] = version(name).partition("+")[0]  # what follows says only for which device it was built
    return found


def _models(folder: Path) -> tuple[str, ...]:
    """Folders and files of weights in a folder of base models, by their paths in it."""
    found = []
    for depth in range(_DEPTH):
        for path in folder.glob("*/" * depth + "*"):
            if path.suffix == ".safetensors" or (path / "model_index.json").is_file():
                found.append(path.relative_to(folder).as_posix())
    return tuple(sorted(found))


def list_gpus() -> tuple[Device, ...]:
    """GPUs as the driver's own tool shows them; none where there is no such tool."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    question = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(question, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows: Sequence[tuple[str, str, str]] = [line.rpartition(",") for line in said.splitlines()]
    return tuple(
        Device(name=name.strip(), memory_gb=round(int(mib) * 2**20 / 1e9, 1))
        for name, _, mib in rows
        if mib.strip().isdigit()
    )


def _answer(folder: Path, marker: str, answer: str) -> str | None:
    """Leave an answer beside the marker; what is wrong where that cannot be done."""
    try:
        text = (folder / marker).read_text()
    except OSError:
        return "It does not see the server's root: the same path is another folder there, or none."
    try:
        temporary = folder / f".{answer}.tmp"
        temporary.write_text(text)
        temporary.replace(folder / answer)
    except OSError as error:
        return f"It cannot write to the server's root: {error.strerror}."
    return None
