"""RunOutput: everything that leaves a run while it trains, and what it ends with. Rank 0 has one, others `NoOutput`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from influencerai.domain import StageEvent, TrainingResult, TrainingSpec, WarningEvent
from influencerai.lora.adapter import Adapter, LoraWeights
from influencerai.lora.file import FILE_DTYPE, Weights
from influencerai.models.device import free_memory
from influencerai.models.family import load_family
from influencerai.models.loadable_model import LoadableModel
from influencerai.train.backend import RunContext
from influencerai.train.optimization import Optimization, StepOutcome
from influencerai.train.runs.exporter import Exporter
from influencerai.train.runs.recorder import Recorder
from influencerai.train.runs.samples import draw_samples
from influencerai.train.runs.training_state import TrainingState, epoch_ends
from influencerai.training_plan import TrainingPlan

TRAINED_NOTHING = (
    "The training has learned nothing: the final file changes no picture. Raise learningRate (Prodigy needs 1), "
    "shorten the warm-up, leave maxGradNorm and minSnrGamma at their defaults, or train more steps."
)
STAYED_THE_SAME = TRAINED_NOTHING.replace(
    "the final file changes no picture", "the final file holds the weights that it started with"
)


class RunOutput:
    """Events, history, training states, LoRA files and samples of one run.

    `optimization` stands at the step that the run starts or continues from; `components` are the modules that carry
    `adapter`.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        plan: TrainingPlan,
        context: RunContext,
        *,
        base: LoadableModel,
        optimization: Optimization,
        components: Mapping[str, nn.Module],
        adapter: Adapter,
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._context = context
        self._base = base
        self._family = load_family(base.family)
        self._optimization = optimization
        self._components = components
        self._adapter = adapter
        self._recorder = Recorder(spec, plan, context)
        self._exporter = Exporter(spec, plan, context, family=self._family)

    @contextmanager
    def running(self, state: TrainingState | None) -> Iterator[None]:
        """Surround the steps of the run, which continues from `state`; an error in the block publishes epochs."""
        self._first_weights = self._adapter.weights() if self._spec.origin and not state else {}
        for past in epoch_ends(self._context.run_dir, spec_id=self._spec.id):
            with self._adapter.swapped(past.export or past.adapter):
                self._exporter.remember(self._adapter.weights(), step=past.step, epoch=past.epoch)
        if self._optimization.step == 0 and self._plan.sample_epochs:
            self._sample(0)
        with self._recorder.recording(state), self._exporter.publishing_on_failure():
            self._context.emit(StageEvent(stage="training", done=self._optimization.step, total=self._plan.total_steps))
            yield

    def add(self, outcome: StepOutcome) -> None:
        """Report the step that was just taken."""
        self._recorder.add(outcome)

    def validated(self, loss: float, *, epoch: int) -> None:
        """Report the validation loss after `epoch`."""
        self._recorder.validated(loss, step=self._optimization.step, epoch=epoch)

    def end_epoch(self, epoch: int) -> None:
        """Keep the weights of a complete epoch, and write its file and samples where the plan has them."""
        step = self._optimization.step
        with self._optimization.exported_weights():
            weights = self._adapter.weights()
            self._exporter.remember(weights, step=step, epoch=epoch)
            if epoch in self._plan.save_epochs:
                self._exporter.write_epoch(weights, step=step, epoch=epoch)
            if epoch in self._plan.sample_epochs:
                self._sample(epoch)

    def save_if_due(self) -> None:
        """Save a training state where one is due; see `Recorder.save_if_due`."""
        self._recorder.save_if_due(self._optimization)

    def save(self) -> None:
        """Save a training state."""
        self._recorder.save(self._optimization)

    def export(self) -> None:
        """Write the final file."""
        self._context.emit(StageEvent(stage="exporting"))
        with self._optimization.exported_weights():
            self._weights = self._adapter.weights()
            self._lora_path = self._exporter.write_final(self._weights, step=self._optimization.step)

    def result(self) -> TrainingResult:
        """The result of the exported run, with a warning where it has learned nothing."""
        result = self._recorder.result(lora_path=self._lora_path, checkpoints=self._exporter.file_names())
        if warning := _learned_nothing(self._weights, first=self._first_weights):
            self._context.emit(WarningEvent(message=warning))
            result = result.model_copy(update={"learned": False, "warnings": (*result.warnings, warning)})
        return result

    def _sample(self, epoch: int) -> None:
        draw_samples(
            self._spec,
            self._context,
            base=self._base,
            family=self._family,
            components=self._components,
            step=self._optimization.step,
            epoch=epoch,
        )
        free_memory()


class NoOutput:
    """The output of a rank other than the first: none."""

    @contextmanager
    def running(self, state: TrainingState | None) -> Iterator[None]:
        yield

    def add(self, outcome: StepOutcome) -> None: ...

    def validated(self, loss: float, *, epoch: int) -> None: ...

    def end_epoch(self, epoch: int) -> None: ...

    def save_if_due(self) -> None: ...

    def save(self) -> None: ...

    def export(self) -> None: ...

    def result(self) -> TrainingResult:
        raise AssertionError("only the first rank has a result")


def _learned_nothing(weights: Weights, *, first: Weights) -> str | None:
    """A warning if these weights change no picture, or are `first`; else None.

    Both are compared in the precision of the file. `first` is empty for a run that starts with a new adapter.
    """
    if not any(bool(torch.any(lora.up.to(FILE_DTYPE) != 0)) for lora in weights.values()):
        return TRAINED_NOTHING
    return STAYED_THE_SAME if first and all(_is_same(weights[key], first[key]) for key in weights) else None


def _is_same(one: LoraWeights, other: LoraWeights) -> bool:
    pairs = ((one.up, other.up), (one.down, other.down))
    return all(torch.equal(a.to(FILE_DTYPE), b.to(FILE_DTYPE)) for a, b in pairs)
