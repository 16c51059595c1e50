"""Trainer: a LoRA from a folder of pictures, in two calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from influencerai import artifacts
from influencerai.domain import Event, LoraConfig, StageEvent, TrainingResult, TrainingSpec, WarningEvent
from influencerai.domain.output_path import output_path
from influencerai.errors import CheckpointError, InfluencerAIError, StoppedError
from influencerai.settings import Settings
from influencerai.train.backend import RunContext, load_backend
from influencerai.train.checkpoint import list_checkpoints
from influencerai.train.failure import describe_failure
from influencerai.train.preparation import Preparation, prepare
from influencerai.train.run import Run
from influencerai.train.run_folder import RunFolder


class Trainer:
    """Trains LoRAs by one configuration.

        run = Trainer(LoraConfig(name="me", model_name="sd15")).train("data/datasets/me")
        run.lora_path

    `on_event` hears what happens; `should_stop` is asked at every step and ends the run resumably. Nothing is
    touched before `train` or `prepare` is called.
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
        self._on_event = on_event or (lambda event: None)
        self._should_stop = should_stop or (lambda: False)

    def prepare(self, dataset: str | Path) -> Preparation:
        """Check everything and resolve the run's spec; nothing is trained or written.

        Raises:
            DatasetError, ModelError: what is wrong, where, and what to do.
        """
        return prepare(self.config, self._dataset_dir(dataset), settings=self.settings)

    def train(self, dataset: str | Path, *, resume: bool = False) -> Run:
        """Train on the images and captions in `dataset`, a folder relative to the settings' root.

        With `resume`, go on with the newest unfinished run for the same output path, which ends with the same bytes
        as if it had never been interrupted.

        Raises:
            StoppedError: `should_stop` said so; the state is saved.
            CheckpointError: there is nothing to resume, or the dataset or a setting has changed since.
            InfluencerAIError: the run failed; `failure` holds the contract's result of a failed job.
        """
        dataset_dir = self._dataset_dir(dataset)
        self._on_event(StageEvent(stage="checking"))
        preparation = self.prepare(dataset)
        requested = self.settings.root / output_path(self.config)
        runs_dir = self.settings.root / ".influencerai" / "runs"
        warnings = list(preparation.warnings)
        if resume:
            folder = self._unfinished(runs_dir, requested, preparation.spec)
            if folder.spec.plan.build != preparation.spec.plan.build:
                warnings.append(f"The run was started with {folder.spec.plan.build}: its last bits may differ here.")
        else:
            if left := RunFolder.find_unfinished(runs_dir, output_path=requested):
                warnings.append(f"An unfinished run for this output path is left in {left.path}; it can be resumed.")
                with suppress(CheckpointError), left.lock():
                    artifacts.release_output(requested, left.spec.id)
            folder = RunFolder.create(runs_dir, preparation.spec, output_dir=requested)
        with folder.lock():
            spec = folder.spec
            artifacts.remove_leftovers(folder.path)
            output_dir = artifacts.reserve_output(requested, spec.id)
            artifacts.remove_leftovers(output_dir)
            if output_dir != requested:
                warnings.append(f"{requested} holds the files of another run: this one writes to {output_dir}.")
            for message in warnings:
                self._on_event(WarningEvent(message=message))
            context = RunContext(
                dataset_dir=dataset_dir,
                run_dir=folder.path,
                output_dir=output_dir,
                root=self.settings.root,
                models_dirs=self.settings.models_dirs,
                cache_dir=self.settings.cache_dir,
                cache_max_bytes=int(self.settings.cache_max_gib * 2**30),
                max_image_pixels=self.settings.max_image_pixels,
                emit=self._on_event,
                should_stop=self._should_stop,
            )
            result = self._execute(spec, context, folder)
            result = result.model_copy(update={"warnings": (*warnings, *result.warnings)})
            folder.write_result(result.to_wire())
            for state in list_checkpoints(folder.path):
                state.unlink(missing_ok=True)
        return Run(spec=spec, result=result, output_dir=output_dir, run_dir=folder.path, settings=self.settings)

    def _execute(self, spec: TrainingSpec, context: RunContext, folder: RunFolder) -> TrainingResult:
        try:
            return load_backend(self._backend).train(spec, context)
        except StoppedError:
            raise
        except InfluencerAIError as error:
            error.failure = describe_failure(error, spec, context).to_wire()
            raise

    def _unfinished(self, runs_dir: Path, requested: Path, fresh: TrainingSpec) -> RunFolder:
        folder = RunFolder.find_unfinished(runs_dir, output_path=requested)
        if folder is None:
            raise CheckpointError(
                f"There is no unfinished run for {requested}.",
                remedy="Start without resuming, or use the output path of the interrupted run.",
            )
        if changed := folder.spec.differences(fresh):
            raise CheckpointError(
                f"The run in {folder.path} was started with other values of: {', '.join(changed)}.",
                remedy="Resume with what it was started with, or start a new run.",
            )
        return folder

    def _dataset_dir(self, dataset: str | Path) -> Path:
        return self.settings.root / dataset
