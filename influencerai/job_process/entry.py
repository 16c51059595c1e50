"""One attempt at one job, in a process of its own: prepare, snapshot, train, and tell the worker how it ended."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from influencerai.dataset.snapshot import DATASET_FOLDER, LEFTOVER_SECONDS, restore_snapshot, take_snapshot
from influencerai.domain import (
    CheckpointEvent,
    Event,
    SampleEvent,
    StageEvent,
    TrainingFailure,
    TrainingSpec,
    WarningEvent,
)
from influencerai.domain.relative_path import OWN_FOLDER
from influencerai.errors import DatasetError, ExportError, InfluencerAIError, StoppedError
from influencerai.files import atomic_file, output_folder
from influencerai.files.beneath import pinned
from influencerai.job_process.messages import (
    Completed,
    Failed,
    Prepared,
    ProcessMessage,
    Progress,
    Stop,
    Stopped,
    TrainingRequest,
    WorkerMessage,
)
from influencerai.job_process.secret_values import without_secrets
from influencerai.models.device import check_device, device_facts
from influencerai.models.loadable_model import find_loadable_model
from influencerai.models.quiet import quiet_libraries
from influencerai.scheduling.resource_options import describe_option
from influencerai.settings import usable_cores
from influencerai.train.backend import RunContext, load_backend
from influencerai.train.causes import is_infrastructure
from influencerai.train.preparation import Preparation, prepare
from influencerai.train.ranks import Ranks, joined_ranks
from influencerai.train.runs.exporter import epoch_files
from influencerai.train.runs.failure import describe_failure
from influencerai.train.runs.samples import sampled_files
from influencerai.training_plan import TrainingPlan
from influencerai.training_plan.execution import execution_warnings


def take_part(
    order: TrainingRequest,
    *,
    send: Callable[[ProcessMessage], None],
    receive: Callable[[], WorkerMessage],
    stop_requested: Callable[[], bool],
    cancel_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Carry out `order` in the place that it gives this process among those that train together; see `run_attempt`.

    Of several, each has the surroundings that `joined_ranks` reads; all but the first say nothing.
    """
    if order.world_size == 1:
        run_attempt(order, send=send, receive=receive, stop_requested=stop_requested, cancel_requested=cancel_requested)
        return
    with joined_ranks(order.device) as ranks:
        if ranks.is_first:
            run_attempt(
                order,
                send=send,
                receive=receive,
                stop_requested=stop_requested,
                cancel_requested=cancel_requested,
                ranks=ranks,
            )
        else:
            follow_attempt(order, ranks=ranks)


def run_attempt(
    order: TrainingRequest,
    *,
    send: Callable[[ProcessMessage], None],
    receive: Callable[[], WorkerMessage],
    stop_requested: Callable[[], bool],
    cancel_requested: Callable[[], bool] = lambda: False,
    ranks: Ranks | None = None,
) -> None:
    """Carry out `order`. The last message that is sent is Completed, Stopped or Failed; nothing is raised.

    The run's states stay, so that another attempt can go on until the result is safe (`discard_states`).

    Args:
        send: takes a message to the worker.
        receive: blocks until the worker says something; asked once, after Prepared.
        stop_requested: whether the worker has said Stop; asked at every step and between images.
        cancel_requested: whether that Stop cancels the job.
        ranks: this process as the first of those that train together; the others call `follow_attempt`.
    """
    quiet_libraries()
    ranks = ranks or Ranks()
    attempt = _Attempt(
        order, send=send, receive=receive, stop_requested=stop_requested, cancel_requested=cancel_requested, ranks=ranks
    )
    try:
        with ranks.one_fate():
            outcome: ProcessMessage = attempt.run()
    except StoppedError as error:
        outcome = Stopped(failure=attempt.describe(error))
    except Exception as error:
        outcome = attempt.failed(error)
    send(outcome)


def follow_attempt(order: TrainingRequest, *, ranks: Ranks) -> None:
    """Train along in a rank that is not the first, which says what is trained and how it ends; nothing is raised.

    Of the order it needs what is this machine's: root, folders and limits, whether models may be downloaded.
    """
    quiet_libraries()
    attempt = _Attempt(order, send=lambda _: None, receive=_nothing_said, stop_requested=lambda: False, ranks=ranks)
    try:
        with ranks.one_fate():
            attempt.follow()
    except InfluencerAIError:
        pass  # the first rank has raised it too, and tells of it
    except Exception as error:
        attempt.write_down(error)


class _Attempt:
    def __init__(
        self,
        order: TrainingRequest,
        *,
        send: Callable[[ProcessMessage], None],
        receive: Callable[[], WorkerMessage],
        stop_requested: Callable[[], bool],
        ranks: Ranks,
        cancel_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._order = order
        self._send = send
        self._receive = receive
        self._stop_requested = stop_requested
        self._is_cancelled = cancel_requested
        self._ranks = ranks
        self._run: tuple[TrainingSpec, RunContext] | None = None

    def run(self) -> Completed:
        order = self._order
        backend = load_backend(order.backend)
        self._emit(StageEvent(stage="checking"))
        atomic_file.remove_leftovers(order.run_dir, older_than=LEFTOVER_SECONDS)
        if order.spec is None:
            spec, warnings = self._first_spec()
            output_dir = self._reserve_output(warnings)
        else:
            spec, warnings = order.spec, list(order.warnings)
            output_dir = self._reserve_output(warnings)
            self._run = spec, self._context(output_dir)  # where an earlier attempt may have left files
            self._make_ready(spec)
        spec = self._agree(spec, warnings, output_dir)
        context = self._context(output_dir)
        self._run = spec, context
        for message in warnings:
            if message not in order.warnings:
                self._emit(WarningEvent(message=message))
        if order.spec is not None:
            self._announce(spec, output_dir)
        result = backend.train(spec, context)
        for file in epoch_files(output_dir, spec):
            if file.name not in result.checkpoints:  # an attempt that failed has published it
                file.unlink(missing_ok=True)
        return Completed(result=result.model_copy(update={"warnings": (*warnings, *result.warnings)}))

    def follow(self) -> None:
        """What `run` does, in a rank to which the first one says what is trained."""
        spec, output_dir = self._ranks.hear()
        check_device(spec.plan.device)
        self._find_model(spec)
        self._ranks.gather(device_facts(spec.plan.device))
        load_backend(self._order.backend).train(spec, self._context(output_dir))

    def describe(self, error: InfluencerAIError) -> TrainingFailure:
        """The contract's result of a failed job."""
        failure = TrainingFailure(error=str(error), code=error.code, remedy=error.remedy or error.advice, epoch=0)
        if self._run:
            try:
                failure = describe_failure(error, *self._run)
            except (InfluencerAIError, OSError) as second:
                self.write_down(second)  # the folder that failed may be the one to be described
        shown = {"error": self._shown(failure.error), "remedy": self._shown(failure.remedy or "") or None}
        return failure.model_copy(update=shown)

    def failed(self, error: Exception) -> Failed:
        known = isinstance(error, InfluencerAIError)
        retryable = not known or is_infrastructure(error)
        if retryable:
            self.write_down(error)
        named = error if isinstance(error, InfluencerAIError) else InfluencerAIError(_last_line(error))
        code = error.code if isinstance(error, InfluencerAIError) else "internal"
        failure = self.describe(named).model_copy(update={"code": code})
        return Failed(code=code, message=failure.error, retryable=retryable, failure=failure)

    def write_down(self, error: Exception) -> None:
        """Into the log, which lies on the disk that may be full."""
        with suppress(OSError):
            sys.stderr.write(self._shown("".join(traceback.format_exception(error))))

    def _first_spec(self) -> tuple[TrainingSpec, list[str]]:
        """Resolve the run from the user's folder, and copy its images."""
        order = self._order
        check_device(order.device)
        with self._dataset() as source:
            preparation = self._as_placed(
                prepare(order.config, source, settings=order, as_path=order.as_path, world_size=self._ranks.count)
            )
            take_snapshot(
                preparation.spec,
                source,
                run_dir=order.run_dir,
                blobs_dir=order.blobs_dir,
                check=lambda: self._check_stop("copying the images"),
            )
        return preparation.spec, list(preparation.warnings)

    @contextmanager
    def _dataset(self) -> Iterator[Path]:
        """The user's folder, which may be exchanged for a link while it is read."""
        order, root = self._order, self._order.root.resolve()
        place = _inside(order.root, order.dataset, error=DatasetError).resolve()
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(pinned(root, place.relative_to(root).as_posix()))
            except FileNotFoundError as error:
                text = f"{order.dataset} cannot be trained on: The folder does not exist."
                raise DatasetError(text, remedy="Check the path.") from error
            except (OSError, ValueError) as error:  # exchanged for a link or a file since it was resolved
                raise DatasetError(f"{order.dataset} cannot be opened: it is no folder.") from error
            yield folder

    def _as_placed(self, preparation: Preparation) -> Preparation:
        """The run as it fits into what it was given: the same batch, perhaps with more work for less memory."""
        order, plan = self._order, preparation.spec.plan
        if order.micro_batch is None or order.gradient_checkpointing is None:
            return preparation
        said = describe_option(
            order.config, micro_batch=order.micro_batch, gradient_checkpointing=order.gradient_checkpointing
        )
        placed = {"micro_batch": order.micro_batch, "gradient_checkpointing": order.gradient_checkpointing}
        spec = preparation.spec.model_copy(update={"plan": plan.model_copy(update=placed)})
        return replace(preparation, spec=spec, warnings=(*preparation.warnings, *([said] if said else [])))

    def _make_ready(self, spec: TrainingSpec) -> None:
        """See to it that this machine has what a run that was resolved elsewhere needs."""
        order = self._order
        restore_snapshot(spec, run_dir=order.run_dir, blobs_dir=order.blobs_dir)
        self._find_model(spec)

    def _find_model(self, spec: TrainingSpec) -> None:
        order = self._order
        find_loadable_model(
            spec.model.name,
            models_dirs=order.models_dirs,
            allow_download=order.allow_downloads,
            as_path=order.as_path,
        )

    def _reserve_output(self, warnings: list[str]) -> Path:
        order = self._order
        requested = _inside(order.root, order.output_dir, error=ExportError)
        output_dir = output_folder.reserve_output(requested, order.job_id, suffix=order.job_id)
        atomic_file.remove_leftovers(output_dir, older_than=LEFTOVER_SECONDS)
        if output_dir != requested:
            _add(warnings, f"{order.output_dir} holds other files: the job writes to {self._relative(output_dir)}.")
        return output_dir

    def _agree(self, spec: TrainingSpec, warnings: list[str], output_dir: Path) -> TrainingSpec:
        """Report what would be trained, and hear from the worker what is."""
        order = self._order
        self._check_stop("checking")
        self._send(
            Prepared(
                spec=spec,
                warnings=tuple(warnings),
                output_dir=self._relative(output_dir),
                dataset_fingerprint=spec.dataset_fingerprint,
            )
        )
        answer = self._receive()
        if isinstance(answer, Stop):
            raise _stopped("waiting")
        frozen = answer.spec
        check_device(frozen.plan.device)
        if frozen != spec:
            restore_snapshot(frozen, run_dir=order.run_dir, blobs_dir=order.blobs_dir)
        self._ranks.say((frozen, output_dir))
        devices = self._ranks.gather(device_facts(frozen.plan.device))
        for message in execution_warnings(frozen.plan, devices, cores=usable_cores()):
            _add(warnings, message)
        return frozen

    def _announce(self, spec: TrainingSpec, output_dir: Path) -> None:
        """Tell of the files that an earlier attempt wrote when nobody was there to hear of it."""
        steps = TrainingPlan(spec).steps_per_epoch
        published = self._order.published
        for file in epoch_files(output_dir, spec):
            if file.name not in published:
                epoch = int(file.stem.rpartition("-")[2])
                digest = atomic_file.sha256_file(file)
                self._emit(CheckpointEvent(step=epoch * steps, epoch=epoch, path=str(file), sha256=digest))
        for epoch, picture in sampled_files(output_dir):
            if picture.name not in published:
                self._emit(SampleEvent(step=epoch * steps, epoch=epoch, paths=(str(picture),)))

    def _context(self, output_dir: Path) -> RunContext:
        order = self._order
        return RunContext(
            dataset_dir=order.run_dir / DATASET_FOLDER,
            run_dir=order.run_dir,
            output_dir=output_dir,
            root=order.root,
            models_dirs=order.models_dirs,
            cache_dir=order.cache_dir,
            cache_max_bytes=order.cache_max_bytes,
            max_image_pixels=order.max_image_pixels,
            emit=self._emit,
            should_stop=self._stop_requested,
            cancel_requested=self._is_cancelled,
            ranks=self._ranks,
        )

    def _emit(self, event: Event) -> None:
        """Send the event; before the training, whose steps ask themselves, end here when that is wanted."""
        if isinstance(event, StageEvent) and event.stage not in ("training", "exporting"):
            self._check_stop(event.stage)
        self._send(Progress(event=self._as_seen_from_root(event)))

    def _check_stop(self, what: str) -> None:
        if self._stop_requested():
            raise _stopped(what)

    def _as_seen_from_root(self, event: Event) -> Event:
        match event:
            case CheckpointEvent():
                return event.model_copy(update={"path": self._relative(Path(event.path))})
            case SampleEvent():
                return event.model_copy(update={"paths": tuple(self._relative(Path(path)) for path in event.paths)})
            case WarningEvent():
                return event.model_copy(update={"message": self._shown(event.message)})
        return event

    def _relative(self, path: Path) -> str:
        root = self._order.root
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def _shown(self, text: str) -> str:
        """The text as a tenant may read it: no path of this machine, no secret of this process."""
        text = without_secrets(text)
        for folder, shown in self._folders():
            text = text.replace(f"{folder}/", shown)
        return text

    def _folders(self) -> list[tuple[Path, str]]:
        """The folders of this machine that no message names, the longest first, and what stands in their place."""
        order = self._order
        shown = {Path.home(): "", order.cache_dir: "", **dict.fromkeys(order.models_dirs, "models/"), order.root: ""}
        shown = {folder.resolve(): text for folder, text in shown.items()} | shown
        return sorted(shown.items(), key=lambda item: len(str(item[0])), reverse=True)


def _stopped(what: str) -> StoppedError:
    return StoppedError(f"Stopped while {what}; what was done so far is kept.")


def _nothing_said() -> WorkerMessage:
    raise AssertionError("Only the first rank speaks with the worker.")


def _inside(root: Path, relative: str, *, error: type[InfluencerAIError]) -> Path:
    """The folder below `root`; looked at again here, since links may have changed since the job was made."""
    path = root / relative
    try:
        place, top = path.resolve(), root.resolve()
        leaves = not place.is_relative_to(top)
    except (OSError, RuntimeError) as failure:
        raise error(f"{relative} cannot be opened: {failure}.") from failure
    if leaves:
        raise error(f"{relative} leads out of the root.", remedy="Name a folder below it, without links out of it.")
    if OWN_FOLDER in (part.lower() for part in place.relative_to(top).parts):
        raise error(f"{relative} leads into {OWN_FOLDER}.", remedy="Name a folder beside it, without links into it.")
    return path


def _add(warnings: list[str], message: str) -> None:
    if message not in warnings:
        warnings.append(message)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
