"""One training as the CLI runs it: shown while it goes, ended by signals, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from influencerai.cli.plan_text import chosen_text
from influencerai.cli.progress import choose_listener
from influencerai.domain import Event, LoraConfig, StageEvent, WarningEvent
from influencerai.interruption import InterruptedTraining
from influencerai.settings import Settings
from influencerai.train.light_check import check_training, refuse_warnings

if TYPE_CHECKING:
    from influencerai.train.runs.run import Run


def run_training(
    config: LoraConfig,
    dataset: str | Path,
    *,
    settings: Settings,
    backend: str = "diffusers",
    resume: bool = False,
    init_from: str | None = None,
    warnings: Sequence[str] = (),
    strict: bool = False,
    as_json: bool,
) -> Run:
    """Train, showing what was chosen and then progress; `warnings` are shown before the run's own.

    With `strict` a training with warnings is refused.

    Raises:
        InterruptedRun: a signal ended the run.
        InfluencerAIError: the run failed, or the train extra is not installed.
    """
    with (
        choose_listener(as_json=as_json) as listener,
        InterruptedTraining(announce=listener.announce_stop) as interruption,
    ):

        def on_event(event: Event) -> None:
            interruption.watch(event)
            is_said = isinstance(event, StageEvent) and event.detail and not (as_json or resume)  # by `chosen_text`
            if not is_said:
                listener(event)

        on_event(StageEvent(stage="checking"))
        for message in warnings:
            listener(WarningEvent(message=message))
        found = check_training(
            config,
            dataset,
            settings=settings,
            backend=backend,
            init_from=init_from,
            warnings=warnings,
            strict=strict,
        )
        if not as_json and not resume:
            listener.say(chosen_text(found))

        from influencerai.train.trainer import Trainer

        trainer = Trainer(
            config,
            settings=settings,
            backend=backend,
            on_event=on_event,
            should_stop=lambda: interruption.requested,
        )
        if strict:
            refuse_warnings([*warnings, *trainer.prepare(dataset, report=found.dataset).warnings])
        return trainer.train(dataset, resume=resume, init_from=init_from, report=found.dataset)
