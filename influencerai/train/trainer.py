"""Trainer: a LoRA from a folder of pictures, in two calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pydantic

from influencerai import artifacts
from influencerai.domain import Event, LoraConfig, StageEvent, TrainingResult, TrainingSpec, WarningEvent
from influencerai.domain.output_path import output_path
from influencerai.errors import CheckpointError, InfluencerAIError, StoppedError, ValidationError
from influencerai.imageset import ImageSetReport
from influencerai.settings import Settings
from influencerai.train.backend import Backend, RunContext, load_backend
from influencerai.train.best_epoch import best_epoch
from influencerai.train.checkpoint import list_checkpoints
from influencerai.train.failure import describe_failure
from influencerai.train.history import file_errors, read_history
from influencerai.train.preparation import Preparation, prepare
from influencerai.train.quiet import quiet_libraries
from influencerai.train.recorder import HISTORY_FILE
from influencerai.train.run import Run
from influencerai.train.run_folder import RunFolder
from influencerai.train.run_pictures import LOSS_PLOT, SAMPLES_SHEET, write_loss_plot, write_samples_sheet
from influencerai.train.watch import Watch, watched


class Trainer:
    """Trains LoRAs by one configuration.

        run = Trainer(LoraConfig(name="me", model_name="sd15")).train("data/datasets/me")
        run.lora_path

    Without `on_event`, `train` shows its progress: a plot in a notebook, a bar in a terminal, else a line now and then.
    Without `should_stop`, Ctrl-C (in a notebook, the Stop button) ends the run after the current step, resumably.
    Nothing is touched before `train` or `prepare` is called.

    Args:
        config: the configuration of the training.
        settings: default: those of `Settings.load()`.
        backend: `diffusers` trains, `dry-run` checks everything and trains nothing.
        on_event: called with every event of the run.
        should_stop: asked at every step; where it is true, the run ends resumably.
    """

    def __init__(
        self,
        config: LoraConfig,
        *,
        settings: Settings | None = None,
        backend: str = "diffusers",
        on_event: Callable[[Event], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.config = config
        self.settings = settings or Settings.load()
        self._backend = backend
        self._on_event = on_event
        self._should_stop = should_stop

    def prepare(self, dataset: str | Path, *, report: ImageSetReport | None = None) -> Preparation:
        """Check everything and resolve the run's spec; nothing is trained or written.

        `report` is an inspection of the dataset by this configuration that was made just now.

        Raises:
            DatasetError, ModelError: what is wrong, where, and what to do.
            ValidationError: `outputPath` ends in what cannot be the name of a file.
        """
        try:
            return prepare(self.config, self._dataset_dir(dataset), settings=self.settings, report=report)
        except pydantic.ValidationError as error:
            texts = [item["msg"].removeprefix("Value error, ") for item in error.errors()]
            raise ValidationError(field_errors={"outputPath": texts}) from error

    def train(
        self,
        dataset: str | Path,
        *,
        resume: bool = False,
        progress: bool | None = None,
        report: ImageSetReport | None = None,
    ) -> Run:
        """Train on the images and captions in `dataset`, a folder relative to the settings' root.

        With `resume`, go on with the newest unfinished run for the same output path, which ends with the same bytes
        as if it had never been interrupted. `progress` shows the training while it goes on (default: unless there is an
        `on_event`); without it, warnings are issued as Python's. `report` is as in `prepare`.

        Raises:
            StoppedError: Ctrl-C or `should_stop` ended the run; the state is saved.
            CheckpointError: there is nothing to resume, or the dataset or a setting has changed since.
            InfluencerAIError: the run failed; `failure` holds the contract's result of a failed job.
        """
        with watched(
            self.config.name, on_event=self._on_event, should_stop=self._should_stop, progress=progress
        ) as watch:
            return self._train(dataset, resume=resume, watch=watch, report=report)

    def _train(self, dataset: str | Path, *, resume: bool, watch: Watch, report: ImageSetReport | None) -> Run:
        quiet_libraries()
        backend = load_backend(self._backend)
        dataset_dir = self._dataset_dir(dataset)
        watch.emit(StageEvent(stage="checking"))
        preparation = self.prepare(dataset, report=report)
        requested = self.settings.root / output_path(self.config)
        runs_dir = self.settings.root / ".influencerai" / "runs"
        warnings = list(preparation.warnings)
        if resume:
            folder = self._unfinished(runs_dir, requested, preparation.spec, backend=backend.name)
            if folder.spec.plan.build != preparation.spec.plan.build:
                warnings.append(f"The run was started with {folder.spec.plan.build}: its last bits may differ here.")
        else:
            if left := RunFolder.find_unfinished(runs_dir, output_path=requested, backend=backend.name):
                warnings.append(
                    f"The unfinished run for this output path in {left.path} can be resumed (--resume, or "
                    "resume=True), or delete that folder."
                )
                with suppress(CheckpointError, OSError), left.lock():
                    artifacts.release_output(requested, left.spec.id)
            folder = RunFolder.create(runs_dir, preparation.spec, output_dir=requested, backend=backend.name)
        with folder.lock():
            spec = folder.spec
            output_dir = artifacts.reserve_output(requested, spec.id)
            for place in (folder.path, output_dir):
                with file_errors(place):
                    artifacts.remove_leftovers(place)
            if output_dir != requested:
                warnings.append(
                    f"{requested} holds the files of another run: this one writes to {output_dir}. To change that, "
                    "delete that folder or choose another outputPath."
                )
            for message in warnings:
                watch.emit(WarningEvent(message=message))
            context = RunContext(
                dataset_dir=dataset_dir,
                run_dir=folder.path,
                output_dir=output_dir,
                root=self.settings.root,
                models_dirs=self.settings.models_dirs,
                cache_dir=self.settings.cache_dir,
                cache_max_bytes=int(self.settings.cache_max_gib * 2**30),
                max_image_pixels=self.settings.max_image_pixels,
                emit=watch.emit,
                should_stop=watch.should_stop,
            )
            result = self._execute(backend, spec, context)
            result = result.model_copy(update={"warnings": (*warnings, *result.warnings)})
            self._draw_run(spec, context, lora=self.settings.root / result.lora_path)
            folder.write_result(result.to_wire())
            for state in list_checkpoints(folder.path):
                with suppress(OSError):
                    state.unlink()
        return Run(spec=spec, result=result, output_dir=output_dir, run_dir=folder.path, settings=self.settings)

    def _draw_run(self, spec: TrainingSpec, context: RunContext, *, lora: Path) -> None:
        """Write the pictures of the finished run; one that cannot be drawn is a warning and fails no run."""
        try:
            records = read_history(context.run_dir / HISTORY_FILE)
            validations = [record for record in records if record["type"] == "validation"]
            best = best_epoch(spec, validations, output_dir=context.output_dir, final=lora)
            write_loss_plot(spec, records, output_dir=context.output_dir)
            write_samples_sheet(spec, output_dir=context.output_dir, best=best.epoch if best else None)
        except (InfluencerAIError, ImportError, OSError, ValueError, KeyError) as error:
            message = f"{LOSS_PLOT} and {SAMPLES_SHEET} cannot be drawn: {error} The LoRA files are complete."
            context.emit(WarningEvent(message=message))

    def _execute(self, backend: Backend, spec: TrainingSpec, context: RunContext) -> TrainingResult:
        try:
            return backend.train(spec, context)
        except StoppedError:
            raise
        except InfluencerAIError as error:
            with suppress(CheckpointError):
                error.failure = describe_failure(error, spec, context).to_wire()
            raise

    def _unfinished(self, runs_dir: Path, requested: Path, fresh: TrainingSpec, *, backend: str) -> RunFolder:
        folder = RunFolder.find_unfinished(runs_dir, output_path=requested, backend=backend)
        if folder is None:
            raise _nothing_to_resume(RunFolder.list_runs(runs_dir, output_path=requested), requested, backend=backend)
        if changed := folder.spec.differences(fresh):
            raise CheckpointError(
                f"The run in {folder.path} was started with other values of: {', '.join(changed)}.",
                remedy="Resume with what it was started with, or start a new run.",
            )
        return folder

    def _dataset_dir(self, dataset: str | Path) -> Path:
        return self.settings.root / dataset


def _nothing_to_resume(runs: list[RunFolder], requested: Path, *, backend: str) -> CheckpointError:
    """Why none of `runs`, newest first, can be continued by `backend`."""
    if not runs:
        return CheckpointError(
            f"There is no unfinished run for {requested}.",
            remedy="Start without resuming, or use the output path of the interrupted run.",
        )
    newest = runs[0]
    if newest.is_finished:
        final = newest.result.get("loraPath", requested)
        return CheckpointError(f"The run for {requested} is complete: {final}.", remedy="Start without resuming.")
    return CheckpointError(
        f"The run in {newest.path} was started with the backend '{newest.backend}', not with '{backend}'.",
        remedy="Resume with the backend that it was started with, or start a new run.",
    )
