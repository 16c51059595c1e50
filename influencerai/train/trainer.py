"""Trainer: a LoRA from a folder of pictures, in two calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from influencerai.dataset import DatasetReport
from influencerai.domain import Event, LoraConfig, StageEvent, TrainingResult, TrainingSpec, WarningEvent
from influencerai.domain.lora_config_record import LoraConfigRecord
from influencerai.domain.output_path import output_path
from influencerai.domain.plain_values import path_text
from influencerai.domain.training_spec import Origin
from influencerai.errors import CheckpointError, DatasetError, InfluencerAIError, StoppedError, ValidationError
from influencerai.files import atomic_file, output_folder
from influencerai.lora.first_weights import copy_first_weights
from influencerai.models.device import device_facts
from influencerai.models.quiet import quiet_libraries
from influencerai.settings import Settings, usable_cores
from influencerai.train.backend import Backend, RunContext, load_backend
from influencerai.train.preparation import Preparation, prepare
from influencerai.train.runs.best_epoch import best_epoch
from influencerai.train.runs.failure import describe_failure
from influencerai.train.runs.folder import RunFolder
from influencerai.train.runs.history import HISTORY_FILE, file_errors, read_history
from influencerai.train.runs.lora_choice import choose_first_weights
from influencerai.train.runs.place import new_place, place_of
from influencerai.train.runs.resumption import Resumption, extend, find_resumption
from influencerai.train.runs.run import Run
from influencerai.train.runs.run_pictures import LOSS_PLOT, SAMPLES_SHEET, write_loss_plot, write_samples_sheet
from influencerai.train.runs.training_state import list_states
from influencerai.train.watch import Watch, watched
from influencerai.training_plan import TrainingPlan, exposure_text
from influencerai.training_plan.execution import execution_warnings


class Trainer:
    """Trains LoRAs by one configuration.

        run = Trainer(LoraConfig(name="me", model_name="sd15")).train("data/datasets/me")
        run.lora_path

    Without `on_event`, `train` shows its progress: a plot in a notebook, a bar in a terminal, else a line now and then.
    Without `should_stop`, Ctrl-C (in a notebook, the Stop button) ends the run after the current step, resumably.
    Nothing is touched before `train` or `prepare` is called.

    Args:
        config: the configuration of the training, or a mapping of its fields as `LoraConfig.parse` reads it.
        settings: default: those of `Settings.load()`.
        backend: `diffusers` trains, `dry-run` checks everything and trains nothing.
        on_event: called with every event of the run.
        should_stop: asked at every step; where it is true, the run ends resumably.

    Raises:
        ValidationError: an argument is of another kind, or the mapping cannot be used.
    """

    def __init__(
        self,
        config: LoraConfig | Mapping[str, Any],
        *,
        settings: Settings | None = None,
        backend: str = "diffusers",
        on_event: Callable[[Event], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        _check_arguments(settings=settings, on_event=on_event, should_stop=should_stop)
        self.config = _own_config(config).aimed()
        self.settings = settings or Settings.load()
        self._backend = backend
        self._on_event = on_event
        self._should_stop = should_stop

    def prepare(self, dataset: str | Path, *, report: DatasetReport | None = None) -> Preparation:
        """Check everything and resolve the run's spec; nothing is trained or written.

        `report` is an inspection of the dataset by this configuration that was made just now.

        Raises:
            DatasetError, ModelError: what is wrong, where, and what to do.
            ValidationError: `outputPath` ends in what cannot be the name of a file.
        """
        return prepare(
            self.config, self._dataset_dir(dataset), settings=self.settings, follow_links=True, report=report
        )

    def train(
        self,
        dataset: str | Path,
        *,
        resume: bool = False,
        init_from: str | Path | None = None,
        progress: bool | None = None,
        report: DatasetReport | None = None,
    ) -> Run:
        """Train on the images and captions in `dataset`, a folder relative to the settings' root.

        With `resume`, go on with the newest run for the same output path, which ends with the same bytes as if it had
        never been interrupted. A finished run is returned as it is; with other epochs, a new run goes on from it.
        Where there is no run yet, one starts. With `init_from`, a LoRA file or the folder of a run, a new run starts
        with those weights. `progress` shows the training while it goes on (default: unless there is an `on_event`);
        without it, warnings are issued as Python's. `report` is as in `prepare`.

        Raises:
            StoppedError: Ctrl-C or `should_stop` ended the run; the state is saved.
            CheckpointError: the dataset or a setting has changed since, or `init_from` does not fit the run.
            InfluencerAIError: the run failed; `failure` holds the contract's result of a failed job.
        """
        with watched(
            self.config.name, on_event=self._on_event, should_stop=self._should_stop, progress=progress
        ) as watch:
            return self._train(dataset, resume=resume, init_from=init_from, watch=watch, report=report)

    def _train(
        self,
        dataset: str | Path,
        *,
        resume: bool,
        init_from: str | Path | None,
        watch: Watch,
        report: DatasetReport | None,
    ) -> Run:
        quiet_libraries()
        backend = load_backend(self._backend)
        dataset_dir = self._dataset_dir(dataset)
        watch.emit(StageEvent(stage="checking"))
        preparation = self.prepare(dataset, report=report)
        first_weights = self._first_weights(init_from)
        if first_weights:
            origin = Origin(sha256=atomic_file.sha256_file(first_weights), file=first_weights.name)
            preparation = replace(preparation, spec=preparation.spec.model_copy(update={"origin": origin}))
        usual = self.settings.root / output_path(self.config)
        warnings = list(preparation.warnings)
        found = self._resumption(preparation.spec, backend=backend.name, resume=resume)
        if found.folder and found.action == "show":
            return self._finished(found.folder, watch=watch)
        warnings += [found.warning] if found.warning else []
        extended_output: Path | None = None
        if found.folder is None:
            spec, requested = new_place(preparation.spec, root=self.settings.root)
            if requested != usual:
                text = f"{usual} holds the files of another name: this run writes to {requested}"
                warnings.append(f"{text}. To change that, choose another name or an outputPath.")
            folder = RunFolder.create(
                self._runs_dir,
                spec,
                output_dir=requested,
                backend=backend.name,
                fill=lambda path: copy_first_weights(first_weights, path),
            )
        else:
            folder = found.folder
            requested = place_of(folder, config=self.config, root=self.settings.root)
            if requested != usual:
                warnings.append(f"The run of this name goes on in {requested}, where it began.")
            warnings += self._check_machine(folder.spec)
            if found.action == "extend":
                folder, extended_output, text = extend(
                    folder,
                    self.config.epochs,
                    fresh=preparation.spec,
                    runs_dir=self._runs_dir,
                    requested=requested,
                    root=self.settings.root,
                )
                warnings.append(text)
        with folder.lock():
            spec = folder.spec
            output_dir = extended_output or output_folder.find_output(requested, spec.id)
            output_dir = output_dir or output_folder.reserve_output(requested, spec.id)
            for place in (folder.path, output_dir):
                with file_errors(place):
                    atomic_file.remove_leftovers(place)
            if output_dir not in (requested, extended_output):
                warnings.append(
                    f"{requested} holds the files of another run: this one writes to {output_dir}. To change that, "
                    "delete that folder or choose another outputPath."
                )
            for message in warnings:
                watch.emit(WarningEvent(message=message))
            watch.emit(StageEvent(stage="checking", detail=exposure_text(TrainingPlan(spec))))
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
                model_name=preparation.spec.model.name,
            )
            result = self._execute(backend, spec, context)
            result = result.model_copy(update={"warnings": (*warnings, *result.warnings)})
            self._draw_run(spec, context, lora=self.settings.root / result.lora_path)
            folder.write_result(result.to_wire())
            for state in list_states(folder.path):
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

    @property
    def _runs_dir(self) -> Path:
        return self.settings.root / ".influencerai" / "runs"

    def _resumption(self, fresh: TrainingSpec, *, backend: str, resume: bool) -> Resumption:
        """What `train` does by the runs that are there for the same output path."""
        if resume:
            runs = RunFolder.list_runs(self._runs_dir, config=self.config)
            return find_resumption(runs, fresh, config=self.config, backend=backend, root=self.settings.root)
        left = RunFolder.find_unfinished(self._runs_dir, config=self.config, backend=backend)
        if left is None:
            return Resumption(action="start")
        with suppress(CheckpointError, OSError), left.lock():
            output_folder.release_output(place_of(left, config=self.config, root=self.settings.root), left.spec.id)
        text = f"The unfinished run for this output path in {left.path} can be resumed (--resume, or resume=True)"
        return Resumption(action="start", warning=f"{text}, or delete that folder.")

    def _finished(self, folder: RunFolder, *, watch: Watch) -> Run:
        """The run as it ended, for a call that repeats."""
        run = Run.open(folder.path, settings=self.settings)
        watch.emit(WarningEvent(message=f"The run for this output path is complete: {run.result.lora_path}."))
        return run

    def _check_machine(self, spec: TrainingSpec) -> list[str]:
        """What of the run's own plan this machine executes otherwise.

        Raises:
            CheckpointError: it has no such device, or the settings ask for another one.
        """
        plan, asked = spec.plan, self.settings.device
        if asked not in ("auto", plan.device) or (plan.device == "cuda" and not torch.cuda.is_available()):
            here = asked if asked != "auto" else "cpu"
            raise CheckpointError(
                f"The run cannot go on with another device: plan.device: {plan.device} ({plan.device_name}) -> {here}.",
                remedy=f"Resume it where there is one, with the setting device at auto or {plan.device}, or start a "
                "new run.",
            )
        found = execution_warnings(plan, [device_facts(plan.device)], cores=usable_cores())
        if plan.device == "cpu" and self.settings.threads not in (None, plan.threads):
            found.append(f"The run keeps its {plan.threads} threads: the setting threads counts for new runs.")
        return found

    def _first_weights(self, init_from: str | Path | None) -> Path | None:
        if init_from is None:
            return None
        name = path_text(init_from, field="init_from")
        if not name.strip():
            raise ValidationError(field_errors={"init_from": ["The name is empty"]})
        root = self.settings.root
        return choose_first_weights(root / name, root=root, rank=self.config.network_dim)

    def _dataset_dir(self, dataset: str | Path) -> Path:
        """The folder of the dataset; an empty name, as of an unset variable, is not the root.

        Raises:
            DatasetError: the name is empty.
            ValidationError: it is no path.
        """
        name = path_text(dataset, field="dataset")
        if not name.strip():
            raise DatasetError("The name of the dataset folder is empty.", remedy="Name the folder; '.' is this one.")
        return self.settings.root / name


def _own_config(config: object) -> LoraConfig:
    """The configuration that a caller gave, also as a server's record or as a mapping.

    Raises:
        ValidationError: it is none, or a field cannot be used.
    """
    if isinstance(config, LoraConfigRecord):
        return config.config
    if isinstance(config, LoraConfig):
        return config
    if isinstance(config, Mapping):
        return LoraConfig.parse(config)
    text = f"Input should be a LoraConfig or a mapping of its fields, not {type(config).__name__}"
    raise ValidationError(field_errors={"config": [text]})


def _check_arguments(*, settings: object, **functions: object) -> None:
    """Refuse arguments of another kind before a training would stumble over them.

    Raises:
        ValidationError: names the arguments.
    """
    errors = {
        name: [f"Input should be a function, not {type(function).__name__}"]
        for name, function in functions.items()
        if function is not None and not callable(function)
    }
    if settings is not None and not isinstance(settings, Settings):
        errors["settings"] = [f"Input should be Settings, such as Settings.load(), not {type(settings).__name__}"]
    if errors:
        raise ValidationError(field_errors=errors)
