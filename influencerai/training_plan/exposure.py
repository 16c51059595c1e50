"""Exposure: the number of images seen in all, and the repeats that reach it."""

from __future__ import annotations

from collections.abc import Sequence

from influencerai.domain import LoraConfig, SampleSpec, TrainingOptions
from influencerai.training_plan.batches import Outline, TrainingPlan

_MOST_REPEATS = 1000


def chosen_exposure(
    config: LoraConfig, options: TrainingOptions, samples: Sequence[SampleSpec]
) -> tuple[LoraConfig, TrainingOptions]:
    """Config and options with the repeats that come nearest to `images_seen`, where that is given.

    Epochs stay as they are configured. Only those that nobody chose are fewer where one repeat would already show too
    many images.
    """
    aim = options.images_seen
    if aim is None:
        return config, options
    once = options.model_copy(update={"repeats": 1})
    per_epoch = TrainingPlan(Outline(config=config, options=once, samples=samples)).images_per_epoch
    epochs = config.epochs
    if "epochs" not in config.model_fields_set and per_epoch * epochs > aim:
        epochs = max(1, round(aim / per_epoch))
        config = config.model_copy(update={"epochs": epochs})
    repeats = min(_MOST_REPEATS, max(1, round(aim / (per_epoch * epochs))))
    return config, options.model_copy(update={"repeats": repeats})


def exposure_text(plan: TrainingPlan) -> str:
    """The images seen and files written, in a sentence."""
    repeats = {plan.repeats(index) for index in plan.training}
    times = f" x {_plural(repeats.pop(), 'repeat')}" if len(repeats) == 1 else ", repeated by their folders,"
    files = ", ".join(str(epoch) for epoch in plan.save_epochs)
    saved = f"files after epochs {files} and {plan.epochs}" if files else "one file at the end"
    shown = f"{_plural(len(plan.training), 'image')}{times} x {_plural(plan.epochs, 'epoch')}"
    return f"{shown}: {plan.total_images:,} images seen in {_plural(plan.total_steps, 'step')}; {saved}."


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
