"""Exporter: a run's LoRA files, each read back and compared before it counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influencerai.domain import CheckpointEvent, TrainingSpec
from influencerai.domain.lora_layout import Layout
from influencerai.errors import InfluencerAIError, StoppedError
from influencerai.lora.file import Weights, verify_lora, write_lora
from influencerai.models.family import Family
from influencerai.train.backend import RunContext
from influencerai.training_plan import TrainingPlan

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
"""The second file's name where both layouts are asked for; diffusers looks for it by itself."""

REMEMBERED_EPOCHS = 2
"""Epochs that a failed run publishes."""


class Exporter:
    """Writes `<name>-epoch-N.safetensors` and `<name>-final.safetensors` into the run's output folder."""

    def __init__(self, spec: TrainingSpec, plan: TrainingPlan, context: RunContext, *, family: Family) -> None:
        self._spec = spec
        self._plan = plan
        self._context = context
        self._family = family
        self._recent: deque[tuple[int, int, Weights]] = deque(maxlen=REMEMBERED_EPOCHS)

    def write_epoch(self, weights: Weights, *, step: int, epoch: int) -> None:
        """The file of a finished epoch; then only the last `keep_last_n` of them stay."""
        self._write(self._epoch_path(epoch), weights, step=step, epoch=epoch)
        if self._spec.options.keep_last_n:
            for old in self._saved_epochs()[: -self._spec.options.keep_last_n]:
                old.unlink(missing_ok=True)

    def write_final(self, weights: Weights, *, step: int) -> str:
        """The file that the run is for. Returns its path, relative to the root where it lies under it."""
        path = self._final_path()
        epochs = self._spec.config.epochs
        self._write(path, weights, step=step, epoch=epochs)
        if self._spec.options.file_format == "both":
            second = self._context.output_dir / DIFFUSERS_FILE
            self._write(second, weights, step=step, epoch=epochs, layout="diffusers")
        root = self._context.root.resolve()
        resolved = path.resolve()
        return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else str(resolved)

    def remember(self, weights: Weights, *, step: int, epoch: int) -> None:
        """Keep a finished epoch's weights in memory, in case the run fails; the last two stay."""
        self._recent.append((epoch, step, weights))

    @contextmanager
    def publishing_on_failure(self) -> Iterator[None]:
        """When the block fails, or is stopped because the job was cancelled, write the remembered epochs' files."""
        try:
            yield
        except Exception as error:
            if isinstance(error, StoppedError) and not self._context.cancel_requested():
                raise
            for epoch, step, weights in self._recent:
                try:
                    self._write(self._epoch_path(epoch), weights, step=step, epoch=epoch)
                except InfluencerAIError as second:
                    error.add_note(f"Epoch {epoch} could not be published: {second}")
            raise

    def file_names(self) -> list[str]:
        """Names of the files that the config asks for: the epochs' in order, then the final one."""
        return [path.name for path in (*self._saved_epochs(), self._final_path()) if path.exists()]

    def _write(self, path: Path, weights: Weights, *, step: int, epoch: int, layout: Layout | None = None) -> None:
        layout = layout or ("diffusers" if self._spec.options.file_format == "diffusers" else "kohya")
        sha256 = write_lora(
            path,
            weights,
            spec=self._spec,
            plan=self._plan,
            family=self._family,
            layout=layout,
            step=step,
            epoch=epoch,
        )
        verify_lora(path, weights, family=self._family)
        self._context.emit(CheckpointEvent(step=step, epoch=epoch, path=str(path), sha256=sha256))

    def _final_path(self) -> Path:
        return self._context.output_dir / f"{self._spec.output_name}-final.safetensors"

    def _epoch_path(self, epoch: int) -> Path:
        return _epoch_path(self._context.output_dir, self._spec, epoch)

    def _saved_epochs(self) -> list[Path]:
        """Without what a failure published, should the run have been resumed after one."""
        planned = {self._epoch_path(epoch) for epoch in self._plan.save_epochs}
        return [path for path in epoch_files(self._context.output_dir, self._spec) if path in planned]


def epoch_files(output_dir: Path, spec: TrainingSpec) -> list[Path]:
    """The epochs' files that are there, in order."""
    paths = (_epoch_path(output_dir, spec, epoch) for epoch in range(1, spec.config.epochs + 1))
    return [path for path in paths if path.exists()]


def _epoch_path(output_dir: Path, spec: TrainingSpec, epoch: int) -> Path:
    return output_dir / f"{spec.output_name}-epoch-{epoch}.safetensors"
