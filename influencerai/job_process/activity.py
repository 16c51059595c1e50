"""Activity: the body of an attempt: resolve the run, copy its images, agree on the spec with the worker, train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from influencerai.dataset.snapshot import DATASET_FOLDER, LEFTOVER_SECONDS, restore_snapshot, take_snapshot
from influencerai.domain import CheckpointEvent, Event, SampleEvent, StageEvent, TrainingSpec, WarningEvent
from influencerai.errors import StoppedError
from influencerai.files import atomic_file
from influencerai.job_process.channel import Channel
from influencerai.job_process.failures import Run
from influencerai.job_process.job_folders import opened_dataset, reserve_output
from influencerai.job_process.messages import Completed, Prepared, Progress, Stop, TrainingRequest
from influencerai.job_process.tenant_view import TenantView
from influencerai.models.device import check_device, device_facts
from influencerai.models.loadable_model import find_loadable_model
from influencerai.scheduling.resource_options import describe_option
from influencerai.settings import usable_cores
from influencerai.train.backend import RunContext, load_backend
from influencerai.train.preparation import Preparation, prepare
from influencerai.train.ranks import Ranks
from influencerai.train.runs.exporter import epoch_files
from influencerai.train.runs.samples import sampled_files
from influencerai.training_plan import TrainingPlan
from influencerai.training_plan.execution import execution_warnings

_TRAINING_STAGES = ("training", "exporting")
"""In these the training itself asks at each step whether to stop."""


class Activity:
    """One attempt in one rank; `run` in rank 0, `follow` in the others."""

    def __init__(self, request: TrainingRequest, channel: Channel, *, ranks: Ranks) -> None:
        self.view = TenantView(request)
        self.resolved: Run | None = None
        """The spec and the folders of the run, once they are known."""
        self._request = request
        self._channel = channel
        self._ranks = ranks

    def run(self) -> Completed:
        """Carry out the request.

        Raises:
            StoppedError: the worker has sent Stop; a training has saved its state.
            InfluencerAIError: the job cannot be trained, or the machine has failed it.
        """
        request = self._request
        backend = load_backend(request.backend)
        self._emit(StageEvent(stage="checking"))
        atomic_file.remove_leftovers(request.run_dir, older_than=LEFTOVER_SECONDS)
        if request.spec is None:
            spec, warnings = self._first_spec()
            output_dir = self._reserve_output(warnings)
        else:
            spec, warnings = request.spec, list(request.warnings)
            output_dir = self._reserve_output(warnings)
            self.resolved = spec, self._context(output_dir)  # an earlier attempt may have left files there
            restore_snapshot(spec, run_dir=request.run_dir, blobs_dir=request.blobs_dir)
            self._find_model(spec)
        spec = self._agree(spec, warnings, output_dir)
        context = self._context(output_dir)
        self.resolved = spec, context
        for message in warnings:
            if message not in request.warnings:
                self._emit(WarningEvent(message=message))
        if request.spec is not None:
            self._announce_files(spec, output_dir)
        result = backend.train(spec, context)
        for file in epoch_files(output_dir, spec):
            if file.name not in result.checkpoints:  # published by a failed attempt
                file.unlink(missing_ok=True)
        return Completed(result=result.model_copy(update={"warnings": (*warnings, *result.warnings)}))

    def follow(self) -> None:
        """Train the spec that rank 0 sends.

        Raises:
            InfluencerAIError: as `run`.
        """
        spec, output_dir = self._ranks.receive()
        check_device(spec.plan.device)
        self._find_model(spec)
        self._ranks.gather(device_facts(spec.plan.device))
        load_backend(self._request.backend).train(spec, self._context(output_dir))

    def _first_spec(self) -> tuple[TrainingSpec, list[str]]:
        """Resolve the run from the user's folder, and copy its images."""
        request = self._request
        check_device(request.device)
        with opened_dataset(request) as source:
            preparation = prepare(
                request.config, source, settings=request, as_path=request.as_path, world_size=self._ranks.count
            )
            preparation = self._as_placed(preparation)
            take_snapshot(
                preparation.spec,
                source,
                run_dir=request.run_dir,
                blobs_dir=request.blobs_dir,
                check=lambda: self._check_stop("copying the images"),
            )
        return preparation.spec, list(preparation.warnings)

    def _as_placed(self, preparation: Preparation) -> Preparation:
        """The run with the resource option that it was placed with: the same batch, perhaps slower in less memory."""
        request, plan = self._request, preparation.spec.plan
        if request.micro_batch is None or request.gradient_checkpointing is None:
            return preparation
        changes = {"micro_batch": request.micro_batch, "gradient_checkpointing": request.gradient_checkpointing}
        warning = describe_option(
            request.config,
            micro_batch=request.micro_batch,
            gradient_checkpointing=request.gradient_checkpointing,
        )
        spec = preparation.spec.model_copy(update={"plan": plan.model_copy(update=changes)})
        return replace(preparation, spec=spec, warnings=(*preparation.warnings, *([warning] if warning else [])))

    def _find_model(self, spec: TrainingSpec) -> None:
        """Check that this machine has the base model, or download it."""
        request = self._request
        find_loadable_model(
            spec.model.name,
            models_dirs=request.models_dirs,
            allow_download=request.allow_downloads,
            as_path=request.as_path,
        )

    def _reserve_output(self, warnings: list[str]) -> Path:
        request = self._request
        requested, reserved = reserve_output(request)
        if reserved != requested:
            text = f"{request.output_dir} holds other files: the job writes to {self.view.path(reserved)}."
            _add(warnings, text)
        return reserved

    def _agree(self, spec: TrainingSpec, warnings: list[str], output_dir: Path) -> TrainingSpec:
        """Send the resolved spec; returns the frozen one, which the worker answers with."""
        request = self._request
        self._check_stop("checking")
        self._channel.send(
            Prepared(
                spec=spec,
                warnings=tuple(warnings),
                output_dir=self.view.path(output_dir),
                dataset_fingerprint=spec.dataset_fingerprint,
            )
        )
        answer = self._channel.receive()
        if isinstance(answer, Stop):
            raise _stopped("waiting")
        frozen = answer.spec
        check_device(frozen.plan.device)
        if frozen != spec:
            restore_snapshot(frozen, run_dir=request.run_dir, blobs_dir=request.blobs_dir)
        self._ranks.broadcast((frozen, output_dir))
        devices = self._ranks.gather(device_facts(frozen.plan.device))
        for message in execution_warnings(frozen.plan, devices, cores=usable_cores()):
            _add(warnings, message)
        return frozen

    def _announce_files(self, spec: TrainingSpec, output_dir: Path) -> None:
        """Emit events of the files that an earlier attempt has written without a worker to record them."""
        steps = TrainingPlan(spec).steps_per_epoch
        published = self._request.published
        for file in epoch_files(output_dir, spec):
            if file.name not in published:
                epoch = int(file.stem.rpartition("-")[2])
                digest = atomic_file.sha256_file(file)
                self._emit(CheckpointEvent(step=epoch * steps, epoch=epoch, path=str(file), sha256=digest))
        for epoch, picture in sampled_files(output_dir):
            if picture.name not in published:
                self._emit(SampleEvent(step=epoch * steps, epoch=epoch, paths=(str(picture),)))

    def _context(self, output_dir: Path) -> RunContext:
        request = self._request
        return RunContext(
            dataset_dir=request.run_dir / DATASET_FOLDER,
            run_dir=request.run_dir,
            output_dir=output_dir,
            root=request.root,
            models_dirs=request.models_dirs,
            cache_dir=request.cache_dir,
            cache_max_bytes=request.cache_max_bytes,
            max_image_pixels=request.max_image_pixels,
            emit=self._emit,
            should_stop=self._channel.stop_requested,
            cancel_requested=self._channel.cancel_requested,
            ranks=self._ranks,
        )

    def _emit(self, event: Event) -> None:
        """Send the event; between the stages before the training, stop here if that is requested."""
        if isinstance(event, StageEvent) and event.stage not in _TRAINING_STAGES:
            self._check_stop(event.stage)
        self._channel.send(Progress(event=self.view.event(event)))

    def _check_stop(self, stage: str) -> None:
        if self._channel.stop_requested():
            raise _stopped(stage)


def _stopped(stage: str) -> StoppedError:
    return StoppedError(f"Stopped while {stage}; what was done so far is kept.")


def _add(warnings: list[str], message: str) -> None:
    if message not in warnings:
        warnings.append(message)
