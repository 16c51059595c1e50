"""A batch on this machine: one training after the other in this process, which has imported torch once."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from influencerai.batch.check import Checked, LocalCheck, memory_problems
from influencerai.batch.listener import BatchListener
from influencerai.batch.rows import BatchRow
from influencerai.batch.state import BatchState, StoredTraining
from influencerai.batch.trainings import Training
from influencerai.domain import Event, WarningEvent
from influencerai.domain.output_path import output_path
from influencerai.errors import InfluencerAIError, StoppedError
from influencerai.interruption import InterruptedTraining, Interruption
from influencerai.preflight import examine, name_faults
from influencerai.settings import Settings
from influencerai.training_plan.memory import physical_memory_bytes


class LocalBatch:
    """Checks and trains here.

    Args:
        settings: of this machine.
        backend: what executes the trainings.
        state: remembers what has failed.
        fail_fast: leave the rest after a failure.
    """

    def __init__(self, *, settings: Settings, backend: str, state: BatchState, fail_fast: bool) -> None:
        self._settings = settings
        self._backend = backend
        self._state = state
        self._fail_fast = fail_fast

    def check(self, trainings: Sequence[Training]) -> list[Checked]:
        """See `LocalCheck.check`; without torch where a folder, base model or output folder cannot be used."""
        if any(self._name_faults(training) for training in trainings):
            return [self._check_lightly(training) for training in trainings]
        return LocalCheck(settings=self._settings, backend=self._backend, state=self._state).check(trainings)

    def _name_faults(self, training: Training) -> list[InfluencerAIError]:
        root, config = self._settings.root, training.config
        folder, output = root / training.dataset, root / output_path(config)
        return name_faults(config, folder, settings=self._settings, output_dir=output)

    def _check_lightly(self, training: Training) -> Checked:
        root, config = self._settings.root, training.config
        found = examine(
            config,
            root / training.dataset,
            settings=self._settings,
            as_path=True,
            follow_links=True,
            output_dir=root / output_path(config),
        ).preflight
        problems = list(found.errors)
        if found.spec and found.device.kind == "cpu":
            problems += memory_problems(found, found.spec, memory=physical_memory_bytes())
        return Checked(training=training, problems=tuple(problems), warnings=found.warnings)

    def train(self, checked: Sequence[Checked], rows: Sequence[BatchRow], listener: BatchListener) -> None:
        """Train what has not ended, in order; a training that fails is recorded and ends no other.

        Raises:
            InterruptedRun: a signal ended it; the training that ran has saved its state.
        """
        gc.collect()
        gc.freeze()  # what the imports made stays; the collections between trainings need not look at it
        with InterruptedTraining(announce=listener.announce_stop) as interruption:
            for item, row in zip(checked, rows, strict=True):
                if row.has_ended:
                    continue
                if interruption.requested:
                    raise StoppedError("Stopped between two trainings.")
                gc.collect()
                self._train(item, row, listener, interruption)
                if self._fail_fast and row.status == "failed":
                    return

    def _train(self, item: Checked, row: BatchRow, listener: BatchListener, interruption: Interruption) -> None:
        from influencerai.train.trainer import Trainer

        told = set(item.warnings)

        def on_event(event: Event) -> None:
            interruption.watch(event)
            if row.apply(event):
                listener(row)
            elif isinstance(event, WarningEvent) and event.message not in told:
                listener.say(f"{row.name}  Warning: {event.message}")

        trainer = Trainer(
            item.training.config,
            settings=self._settings,
            backend=self._backend,
            on_event=on_event,
            should_stop=lambda: interruption.requested,
        )
        row.begin()
        try:
            run = trainer.train(item.training.dataset, resume=item.resumes)
        except (StoppedError, KeyboardInterrupt):
            row.status = "stopped"
            listener(row)
            raise
        except Exception as error:  # the next training may succeed
            is_known = isinstance(error, InfluencerAIError)
            row.fail(str(error) if is_known else f"Unexpected {type(error).__name__}: {error}")
            self._state.put(row.name, StoredTraining(identity=item.identity, error=row.error))
        else:
            if run.result.learned is False:
                row.fail("The training has learned nothing.")
            else:
                row.complete(run.result.to_wire())
            self._state.forget(row.name)
        listener(row)
