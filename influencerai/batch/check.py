"""Checks of a batch before anything starts: faults of every training, and its result or run from earlier calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from influencerai.batch.state import BatchState, spec_identity
from influencerai.batch.trainings import Training
from influencerai.domain import TrainingSpec
from influencerai.errors import CheckpointError, ModelError
from influencerai.preflight import AssumedDevice, Preflight, preflight
from influencerai.settings import Settings
from influencerai.training_plan import TrainingPlan
from influencerai.training_plan.memory import smaller_setting

Standing = Literal["open", "completed", "failed"]
MEMORY_TOLERANCE = 1.2
"""The need is an estimate: only what is beyond the device's memory by so much is refused."""
_RUNS_COMPARED = 50
_SHORTEST_MINUTES = 0.1
"""Of a run whose speed is used; results round to hundredths."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A training that was checked. `standing` is its outcome in earlier calls of the command."""

    training: Training
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    standing: Standing = "open"
    resumes: bool = False
    """Whether there is something to continue: a run here, a job on a server."""
    identity: str = ""
    steps: int | None = None
    seconds: float | None = None
    """Expected, where an earlier run gives a speed."""
    result: dict[str, Any] = field(default_factory=dict)
    """Of a completed one."""
    error: str | None = None
    """Of a failed one."""
    job_id: str | None = None
    """Of the newest job, on a server."""


class LocalCheck:
    """Checks trainings as this machine would run them.

    Raises:
        TrainingError: there is no such backend, or no such device.
    """

    def __init__(self, *, settings: Settings, backend: str, state: BatchState) -> None:
        from influencerai.models.device import device_facts
        from influencerai.models.machine import list_devices
        from influencerai.train.backend import load_backend

        load_backend(backend)
        facts = device_facts(settings.device)
        self._device = AssumedDevice(
            kind=facts.kind, name=facts.name, has_bf16=facts.has_bf16, build=facts.build, basis="This machine has it."
        )
        self._memory = next(device.memory_bytes for device in list_devices() if device.kind == facts.kind)
        self._settings = settings
        self._backend = backend
        self._state = state
        self._runs = settings.root / ".influencerai" / "runs"
        self._damaged: dict[str, str] = {}

    def check(self, trainings: Sequence[Training]) -> list[Checked]:
        """Each with its faults (images, model, options, memory) and its outcome in earlier calls."""
        return [self._check(training) for training in trainings]

    def _check(self, training: Training) -> Checked:
        from influencerai.train.optimizer import usable_optimizer

        settings = self._settings
        found = preflight(
            training.config,
            settings.root / training.dataset,
            settings=settings,
            as_path=True,
            follow_links=True,
            device=self._device,
            usable_optimizer=usable_optimizer,
        )
        problems = list(found.errors)
        checked = Checked(
            training=training,
            warnings=found.warnings,
            steps=found.plan.total_steps if found.plan else None,
        )
        if found.spec is not None:
            try:
                self._check_tensors(found.spec.model.name)
                problems += memory_problems(found, found.spec, memory=self._memory)
                checked = self._with_past(checked, found.spec)
            except ModelError as error:
                problems.append(str(error))
        return replace(checked, problems=tuple(problems))

    def _check_tensors(self, model: str) -> None:
        """Check each tensor of a single-file model, once per model."""
        from influencerai.models.loadable_model import find_loadable_model

        if model not in self._damaged:
            try:
                find_loadable_model(model, models_dirs=self._settings.models_dirs)
                self._damaged[model] = ""
            except ModelError as error:
                self._damaged[model] = str(error)
        if self._damaged[model]:
            raise ModelError(self._damaged[model])

    def _with_past(self, checked: Checked, spec: TrainingSpec) -> Checked:
        """Adds the outcome of earlier calls: a result, a run to continue, or an error."""
        from influencerai.train.runs.folder import RunFolder

        training, identity = checked.training, spec_identity(spec)
        unfinished: RunFolder | None = None
        resumes = False
        checked = replace(checked, identity=identity, seconds=self._seconds(spec))
        for run in RunFolder.list_runs(self._runs, config=training.config):
            if run.backend != self._backend:
                continue
            try:
                earlier = run.spec
            except CheckpointError:
                continue
            if not run.is_finished:
                unfinished = unfinished or run
                resumes |= run is unfinished and not earlier.differences(spec)
            elif spec_identity(earlier) == identity and self._has_file(run.result):
                return replace(checked, standing="completed", result=run.result)
        if error := self._state.get(training.name, identity).error:
            return replace(checked, standing="failed", error=error, resumes=resumes)
        return replace(checked, resumes=resumes)

    def _has_file(self, result: dict[str, Any]) -> bool:
        path = result.get("loraPath")
        return isinstance(path, str) and (self._settings.root / path).is_file()

    def _seconds(self, spec: TrainingSpec) -> float | None:
        """How long the training takes if it is as fast as earlier ones of its model were on this device."""
        kind = (spec.model.name, spec.plan.device_name)
        speed = next((speed for found, speed in self._speeds if found == kind), None)
        return None if speed is None else _pixels(spec) / speed

    @cached_property
    def _speeds(self) -> list[tuple[tuple[str, str], float]]:
        """(model, device) and pixels per second of the last finished runs, newest first."""
        from influencerai.train.runs.folder import RESULT_FILE, RunFolder

        found = []
        newest: list[Path] = sorted(self._runs.glob(f"*/{RESULT_FILE}"), reverse=True)[:_RUNS_COMPARED]
        for path in newest:
            run = RunFolder(path.parent)
            try:
                spec, minutes = run.spec, run.result.get("trainingTimeMinutes")
            except CheckpointError:
                continue
            if isinstance(minutes, float | int) and minutes >= _SHORTEST_MINUTES:
                found.append(((spec.model.name, spec.plan.device_name), _pixels(spec) / (60 * minutes)))
        return found


def memory_problems(found: Preflight, spec: TrainingSpec, *, memory: int) -> list[str]:
    """The problem where the training does not fit into `memory` bytes, with the setting that needs less."""
    if found.memory.gb is None or found.memory.gb * 1e9 <= memory * MEMORY_TOLERANCE:
        return []
    text = f"It needs about {found.memory.gb:g} GB of memory, {spec.plan.device_name} has {memory / 1e9:.0f}."
    return [f"{text} {smaller_setting(spec)}"]


def _pixels(spec: TrainingSpec) -> int:
    """Pixels of all trained images."""
    return TrainingPlan(spec).total_images * spec.config.resolution**2
