"""Doctor: versions, devices, models and folders of this machine, and what training still lacks here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from influencerai import __version__
from influencerai.basemodel.inventory import list_aliases, list_models
from influencerai.demo.characters import MODEL_ID
from influencerai.errors import InfluencerAIError
from influencerai.packages import TRAIN_PACKAGES
from influencerai.preflight.device import gpu_names
from influencerai.settings import Settings
from influencerai.training_plan import processor

INSTALL = "pip install 'influencerai[train]'"
MIN_FREE_BYTES = 2 * 2**30
"""Disk space below which a training is likely to end for want of it."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is missing, and what repairs it."""

    message: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """A folder that is written to, or would be made."""

    name: str
    path: str
    writable: bool
    free_bytes: int


@dataclass(kw_only=True)
class Diagnosis:
    """Everything that doctor shows."""

    versions: dict[str, str | None] = field(default_factory=dict)
    """Version per package; None where it cannot be imported."""
    devices: list[dict[str, Any]] = field(default_factory=list)
    settings: list[dict[str, str]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    folders: list[FolderReport] = field(default_factory=list)
    aliases: list[dict[str, Any]] = field(default_factory=list)
    """The well-known base models, and where they are or belong."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    """Limits of this machine, and what lifts them: trainings work without."""
    warnings: list[str] = field(default_factory=list)

    def to_wire(self) -> dict[str, Any]:
        """The JSON form."""
        document = asdict(self)
        document["folders"] = [
            {"name": folder.name, "path": folder.path, "writable": folder.writable, "freeBytes": folder.free_bytes}
            for folder in self.folders
        ]
        return {"ok": not self.problems, **document}


def diagnose(settings: Settings, *, load_torch: bool = True) -> Diagnosis:
    """Inspect packages, devices, models and folders; nothing is changed and nothing raised for what is missing.

    Without `load_torch`, which takes seconds, the driver's files name the GPUs, and torch is only found.
    """
    found = Diagnosis(warnings=list(settings.warnings))
    found.settings = [
        {"name": origin.name, "value": str(origin.value), "origin": origin.origin} for origin in settings.origins()
    ]
    _look_at_packages(found)
    if found.versions["torch"]:
        if load_torch:
            _look_at_devices(found, settings)
        else:
            _look_at_hardware(found, settings)
    _look_at_models(found, settings)
    _look_at_folders(found, settings)
    return found


def _look_at_packages(found: Diagnosis) -> None:
    found.versions = {"python": platform.python_version(), "influencerai": __version__}
    found.versions |= {name: _version(name, module) for name, module in TRAIN_PACKAGES.items()}
    missing = [name for name in TRAIN_PACKAGES if found.versions[name] is None]
    if missing:
        found.problems.append(
            Problem(message=f"Training needs {', '.join(missing)}, which cannot be imported.", remedy=INSTALL)
        )
    if not importlib.metadata.entry_points(group="influencerai.families"):
        found.problems.append(
            Problem(
                message="influencerai runs from its source without being installed: no model family is registered.",
                remedy=f"pip install --editable '{Path(__file__).parents[1]}[train]'",
            )
        )


def _version(distribution: str, module: str) -> str | None:
    """The version of a package whose module can be found, without importing it."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
        return importlib.metadata.version(distribution)
    except (ImportError, importlib.metadata.PackageNotFoundError):
        return None


def _look_at_devices(found: Diagnosis, settings: Settings) -> None:
    try:
        from influencerai.models.machine import list_devices

        devices = list_devices()
    except (ImportError, OSError) as error:
        found.problems.append(
            Problem(message=f"torch is installed and cannot be loaded: {error}.", remedy=f"{INSTALL} --force-reinstall")
        )
        return
    found.devices = [
        {"kind": device.kind, "name": device.name, "memoryBytes": device.memory_bytes} for device in devices
    ]
    _check_gpu(found, settings)


def _look_at_hardware(found: Diagnosis, settings: Settings) -> None:
    """The CPU and the GPUs that torch would find, as far as the system's files tell."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found.devices = [{"kind": "cpu", "name": processor.model_name(), "memoryBytes": memory}]
    names = [] if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") else gpu_names()
    if names and (found.versions["torch"] or "").endswith("+cpu"):
        found.problems.append(
            Problem(
                message=f"torch {found.versions['torch']} is a build for CPUs and cannot use {names[0]}.",
                remedy="Install the build for its CUDA version: https://pytorch.org/get-started/locally",
            )
        )
        names = []
    found.devices += [{"kind": "cuda", "name": name, "memoryBytes": None} for name in names]
    _check_gpu(found, settings)


def _check_gpu(found: Diagnosis, settings: Settings) -> None:
    if any(device["kind"] == "cuda" for device in found.devices):
        return
    if settings.device == "cuda":
        found.problems.append(
            Problem(
                message="The setting device is 'cuda', and there is no CUDA device that torch can use.",
                remedy="Set INFLUENCERAI_DEVICE=auto, or install the GPU's driver and a CUDA build of torch.",
            )
        )
    elif settings.device == "auto":
        message = f"There is no GPU: trainings use the CPU with {settings.usable_threads} threads."
        remedy = "That is enough for influencerai/tiny-avatars. SD1.5 takes hours to days, SDXL is out of reach."
        found.notes.append(Problem(message=message, remedy=remedy))


def _look_at_models(found: Diagnosis, settings: Settings) -> None:
    found.models = [
        {"name": model.name, "path": str(model.path), "family": model.base and model.base.family, "fault": model.fault}
        for model in list_models(settings.models_dirs)
    ]
    aliases = list_aliases(settings.models_dirs)
    found.aliases = [alias.to_wire() for alias in aliases]
    found.notes += [
        Problem(message=f"{alias.alias} is not here.", remedy=alias.remedy) for alias in aliases if not alias.path
    ]
    if not any(model["name"] == MODEL_ID for model in found.models):
        problem = Problem(
            message=f"The embedded base model {MODEL_ID} is not in {settings.models_dirs[-1]}.",
            remedy="pip install --force-reinstall influencerai",
        )
        found.problems.append(problem)
    elif found.devices:
        _check_embedded_model(found, settings)


def _check_embedded_model(found: Diagnosis, settings: Settings) -> None:
    from influencerai.basemodel import find_base_model

    try:
        find_base_model(MODEL_ID, models_dirs=settings.models_dirs).fingerprint()
    except InfluencerAIError as error:
        remedy = error.remedy or "pip install --force-reinstall influencerai"
        found.problems.append(Problem(message=error.message, remedy=remedy))


def _look_at_folders(found: Diagnosis, settings: Settings) -> None:
    for name, path in (("root", settings.root), ("cache_dir", settings.cache_dir)):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        report = FolderReport(
            name=name,
            path=str(path),
            writable=existing.is_dir() and os.access(existing, os.W_OK | os.X_OK),
            free_bytes=shutil.disk_usage(existing).free,
        )
        found.folders.append(report)
        variable = f"INFLUENCERAI_{name.upper()}"
        if not report.writable:
            remedy = f"chmod u+w '{existing}', or set {variable} to a folder of yours"
            found.problems.append(Problem(message=f"{existing} cannot be written to.", remedy=remedy))
        elif report.free_bytes < MIN_FREE_BYTES:
            found.problems.append(
                Problem(
                    message=f"The disk of {path} has {report.free_bytes / 2**30:.1f} GiB left.",
                    remedy=f"Free space, or set {variable} to a folder on another disk.",
                )
            )
