"""Resumption: the run that `resume` goes on with, is complete by, or continues with other epochs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from influencerai.domain import LoraConfig, TrainingSpec
from influencerai.domain.training_spec import Origin
from influencerai.errors import CheckpointError
from influencerai.files import atomic_file, output_folder
from influencerai.lora.first_weights import FIRST_WEIGHTS_FILE
from influencerai.train.runs.folder import RunFolder
from influencerai.train.runs.history import HISTORY_FILE
from influencerai.train.runs.training_state import TrainingState, load_newest
from influencerai.training_plan import TrainingPlan

_EPOCHS = "config.epochs"


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """What a call with `resume` does, by the runs that are there."""

    action: Literal["start", "go on", "show", "extend"]
    folder: RunFolder | None = None
    """The run that the call goes on with, shows or extends."""
    warning: str | None = None


def find_resumption(
    runs: Sequence[RunFolder], fresh: TrainingSpec, *, config: LoraConfig, backend: str, root: Path
) -> Resumption:
    """Choose among `runs` for one output path, newest first; `fresh` is the run as it would start now from `config`.

    The newest run that `fresh` equals wins, then one that differs in its epochs alone. Without any run, a new one
    starts.

    Raises:
        CheckpointError: there are runs, but started with other values or by another backend.
    """
    own = [run for run in runs if run.backend == backend and not run.is_continued]
    if not own:
        if others := [run for run in runs if not run.has_ended]:
            other = others[0]
            raise CheckpointError(
                f"The run in {other.path} was started with the backend '{other.backend}', not with '{backend}'.",
                remedy="Resume with the backend that it was started with, or start a new run.",
            )
        return Resumption(
            action="start", warning="There is no run to resume yet for this output path: a new one starts."
        )
    changes: list[tuple[RunFolder, dict[str, str]]] = []
    unreadable: CheckpointError | None = None
    for run in own:
        try:
            changes.append((run, _chosen_changes(run.spec, fresh, config)))
        except CheckpointError as error:
            unreadable = unreadable or error
    gone = False
    for run, changed in changes:
        if not changed and not run.is_finished:
            return Resumption(action="go on", folder=run)
        if not changed and _final_file(run, root):
            return Resumption(action="show", folder=run)
        gone |= not changed
    if gone:
        text = "The files of the finished run are gone, or its record is damaged: a new one starts."
        return Resumption(action="start", warning=text)
    for run, changed in changes:
        if changed.keys() == {_EPOCHS}:
            return Resumption(action="extend", folder=run)
    if not changes:
        assert unreadable is not None
        raise unreadable
    raise _refusal(*next((entry for entry in changes if not entry[0].is_finished), changes[0]))


def extend(
    folder: RunFolder, epochs: int, *, fresh: TrainingSpec, runs_dir: Path, requested: Path, root: Path
) -> tuple[RunFolder, Path | None, str]:
    """A new run that goes on from the one in `folder` until `epochs`; its folder, output folder and a warning.

    A stopped run hands on its whole state. A finished one has none: its final file gives the weights, and the
    optimizer starts afresh. The output folder goes with it, where the old final file keeps the name of its epoch.

    Raises:
        CheckpointError: more epochs are done already, or there is neither a state nor a file.
    """
    with folder.lock():
        old = folder.spec
        state = None if folder.is_finished else load_newest(folder.path, spec_id=old.id)
        file = _final_file(folder, root)
        plan = TrainingPlan(old)
        done = plan.total_steps if folder.is_finished else state.step if state else 0
        if epochs * plan.steps_per_epoch < done or (folder.is_finished and epochs <= old.config.epochs):
            raise CheckpointError(
                f"The run in {folder.path} cannot be resumed with config.epochs: {old.config.epochs} -> {epochs}: "
                f"{done // plan.steps_per_epoch} epochs are done.",
                remedy="Name more epochs than that: --epochs is the sum, not what is added.",
            )
        spec = old.model_copy(
            update={
                "config": old.config.model_copy(update={"epochs": epochs}),
                "created_at": fresh.created_at,
                "origin": _origin(old, state=state, file=file, step=done),
            }
        )

        def fill(path: Path) -> None:
            if state:
                replace(state, spec_id=spec.id).save(path)
            elif file and folder.is_finished:
                shutil.copyfile(file, path / FIRST_WEIGHTS_FILE)
            if (history := folder.path / HISTORY_FILE).is_file():
                shutil.copyfile(history, path / HISTORY_FILE)

        new = RunFolder.create(runs_dir, spec, output_dir=requested, backend=folder.backend, fill=fill)
        output_dir = output_folder.take_over_output(requested, previous=old.id, run_id=spec.id)
        folder.mark_continued(spec.id)
        if folder.is_finished and file and output_dir == file.parent:
            kept = file.with_name(f"{old.output_name}-epoch-{old.config.epochs}.safetensors")
            file.replace(kept)
            lora_path = str(PurePosixPath(folder.result["loraPath"]).with_name(kept.name))
            folder.write_result({**folder.result, "loraPath": lora_path})
    return new, output_dir, _said(old, spec, done=done, keeps_optimizer=state is not None)


def _chosen_changes(spec: TrainingSpec, fresh: TrainingSpec, config: LoraConfig) -> dict[str, str]:
    """What differs of all that the user has chosen; what follows from other values follows the run's."""
    given = config.options.model_fields_set
    derived = {f"config.{name}" for name in ("epochs", "learningRate") if _snake(name) not in config.model_fields_set}
    if fresh.options.precision in ("auto", spec.plan.precision):
        derived.add("options.precision")  # the run goes on by its own plan
    if not config.output_path and not spec.config.output_path:
        derived.add("outputName")  # follows from the name, by the rules of the version that began the run
    if "repeats" not in given and ("images_seen" not in given or spec.options.images_seen is None):
        derived |= {"options.imagesSeen", "options.repeats"}
    return {name: text for name, text in spec.changes(fresh).items() if name not in derived}


def _snake(name: str) -> str:
    return "learning_rate" if name == "learningRate" else name


def _final_file(run: RunFolder, root: Path) -> Path | None:
    """The final file of a finished run, where it is still there."""
    path = run.result.get("loraPath")
    return root / path if isinstance(path, str) and (root / path).is_file() else None


def _refusal(folder: RunFolder, changed: dict[str, str]) -> CheckpointError:
    texts = ", ".join(f"{name}: {text}" for name, text in changed.items())
    return CheckpointError(
        f"The run in {folder.path} was started with other values: {texts}.",
        remedy="Resume with what it was started with, or start a new run without resuming. Only epochs may change.",
    )


def _origin(old: TrainingSpec, *, state: TrainingState | None, file: Path | None, step: int) -> Origin | None:
    if state is not None:
        return Origin(sha256=state.digest, file=f"state of step {step}", run=old.id, step=step, keeps_optimizer=True)
    if step == 0:
        return old.origin
    if file is None:
        raise CheckpointError("The files of the finished run are gone.", remedy="Start a new run without resuming.")
    return Origin(sha256=atomic_file.sha256_file(file), file=file.name, run=old.id, step=step)


def _said(old: TrainingSpec, new: TrainingSpec, *, done: int, keeps_optimizer: bool) -> str:
    epochs = f"{old.config.epochs} -> {new.config.epochs}"
    text = f"The run goes on from step {done} with other epochs, {epochs}: "
    if new.options.lr_scheduler != "constant":
        text += f"the learning rate follows {new.options.lr_scheduler} over all {new.config.epochs} epochs from here on"
    else:
        text += "the learning rate stays as it is"
    return text + (", with the optimizer's state." if keeps_optimizer else ", and the optimizer starts afresh.")
