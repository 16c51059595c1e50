"""Learning: values by which a training cannot learn what it is for, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.training_options import Optimizer

_USUAL_RATES: dict[Optimizer, tuple[float, float]] = {
    "AdamW": (1e-5, 1e-2),
    "AdamW8bit": (1e-5, 1e-2),
    "ScheduleFreeAdamW": (1e-5, 5e-2),
    "Lion": (2e-6, 2e-3),
    "Adafactor": (1e-3, 1.0),
    "Prodigy": (0.1, 1.0),
}
"""Lowest and highest learning rate by which a LoRA learns in a usual number of steps without diverging.

Adafactor multiplies its rate by the size of each weight, at least 0.001; Prodigy multiplies its own estimate by it.
"""
_FEWEST_SEEN, _MOST_SEEN, _MOST_PER_IMAGE = 1000, 6000, 200
_SMALLEST_SCALE = 1 / 64
_SMALLEST_NORM, _SMALLEST_GAMMA = 1e-3, 0.1


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """The numbers of a plan that decide whether anything can be learned."""

    images: int
    held_out: int
    images_per_epoch: int
    batches_per_epoch: int
    epochs: int
    total_steps: int


def learning_warnings(config: LoraConfig, options: TrainingOptions, amounts: Amounts) -> list[str]:
    """Everything that keeps the training from learning, or its trigger word from being learned."""
    return [
        *_rate_warnings(config, options),
        *_schedule_warnings(options, amounts.total_steps),
        *_batch_warnings(config, options, amounts),
        *_option_warnings(config, options, amounts),
        *_exposure_warnings(amounts),
    ]


def _rate_warnings(config: LoraConfig, options: TrainingOptions) -> list[str]:
    rate, (lowest, highest) = config.learning_rate, _USUAL_RATES[options.optimizer]
    if rate < lowest and options.optimizer == "Prodigy":
        return [
            f"Prodigy finds the rate itself, as a multiple of learningRate: {rate:g} learns next to nothing. Set 1."
        ]
    if rate < lowest:
        return [f"learningRate {rate:g} is too low for {options.optimizer} to learn: {lowest:g} or more is usual."]
    if rate > highest:
        return [f"learningRate {rate:g} is too high for {options.optimizer}: {highest:g} or less is usual."]
    return []


def _schedule_warnings(options: TrainingOptions, steps: int) -> list[str]:
    warmup = options.warmup_steps if options.warmup_steps is not None else round(options.warmup_ratio * steps)
    found = []
    if warmup >= steps:
        arrived = (min(warmup, steps) - 1) / min(warmup, steps) if warmup else 1
        if warmup:
            found.append(
                f"The warm-up of {warmup} steps takes the whole training of {steps}: the learning rate never arrives, "
                f"and ends at {arrived:.0%} of learningRate. Set warmupSteps to {steps // 20}."
            )
    elif warmup > steps / 2:
        found.append(f"The learning rate rises for {warmup} of {steps} steps. Set warmupSteps to {steps // 20}.")
    if options.lr_scheduler == "cosine_with_restarts" and options.lr_cycles > max(1, (steps - warmup) // 2):
        found.append(f"lrCycles is {options.lr_cycles}, but the training has {steps} steps: most have no cycle.")
    return found


def _batch_warnings(config: LoraConfig, options: TrainingOptions, amounts: Amounts) -> list[str]:
    found = []
    if config.batch_size > amounts.images_per_epoch:
        found.append(
            f"batchSize is {config.batch_size}, but an epoch has {amounts.images_per_epoch} images: no step has more."
        )
    if options.gradient_accumulation > amounts.batches_per_epoch:
        found.append(
            f"gradientAccumulation is {options.gradient_accumulation}, but a step ends with its epoch, after "
            f"{amounts.batches_per_epoch} batches."
        )
    return found


def _option_warnings(config: LoraConfig, options: TrainingOptions, amounts: Amounts) -> list[str]:
    found = []
    if options.caption_dropout >= 0.9:
        found.append(
            f"captionDropout {options.caption_dropout:g} leaves hardly any caption: the trigger word learns nothing."
        )
    if options.train_text_encoder and options.text_encoder_learning_rate == 0 and options.optimizer != "Prodigy":
        found.append("textEncoderLearningRate 0 trains no text encoder: leave trainTextEncoder off.")
    if not options.train_text_encoder and options.text_encoder_learning_rate:
        found.append("textEncoderLearningRate has no effect without trainTextEncoder.")
    highest = _USUAL_RATES[options.optimizer][1]
    if options.train_text_encoder and (options.text_encoder_learning_rate or 0) > highest:
        found.append(
            f"textEncoderLearningRate {options.text_encoder_learning_rate:g} is too high for {options.optimizer}: "
            f"{highest:g} or less is usual."
        )
    if 0 < options.max_grad_norm < _SMALLEST_NORM:
        found.append(
            f"maxGradNorm {options.max_grad_norm:g} clips gradients to next to nothing: 1 is usual, 0 turns it off."
        )
    if options.min_snr_gamma is not None and options.min_snr_gamma < _SMALLEST_GAMMA:
        found.append(
            f"minSnrGamma {options.min_snr_gamma:g} weighs the loss down to next to nothing: 5 is usual, null turns "
            "it off."
        )
    if config.network_alpha / config.network_dim < _SMALLEST_SCALE:
        found.append(
            f"networkAlpha {config.network_alpha:g} of networkDim {config.network_dim} scales the adapter by "
            f"{config.network_alpha / config.network_dim:.2g}: it learns as much more slowly. Half the dim is usual."
        )
    if amounts.held_out > amounts.images / 2:
        found.append(
            f"validationSplit holds out {amounts.held_out} of {amounts.images} images: "
            f"{amounts.images - amounts.held_out} are trained on. 0.1 to 0.2 is usual."
        )
    return found


def _exposure_warnings(amounts: Amounts) -> list[str]:
    seen, images = amounts.images_per_epoch * amounts.epochs, amounts.images - amounts.held_out
    advice = "1,500 to 3,000 are usual for a character. Set imagesSeen to 2000, or change repeats or epochs."
    if seen < _FEWEST_SEEN:
        return [f"{seen:,} images are seen in all: {advice}"]
    if seen > max(_MOST_SEEN, _MOST_PER_IMAGE * images):
        return [f"{seen:,} images are seen in all, each {seen // images:,} times: {advice}"]
    return []
