"""Findings: valid specs and options that are probably mistakes."""

from __future__ import annotations

from influencerai.domain import TrainingOptions, TrainingSpec
from influencerai.domain.lora_layout import READERS


def spec_warnings(spec: TrainingSpec, *, own_size: int) -> list[str]:
    """Warnings about combinations of config, options and base model; `own_size` is the model's, in pixels."""
    found = [*spec.config.warnings, *_option_warnings(spec.options)]
    resolution = spec.config.resolution
    if not 0.75 * own_size <= resolution <= 2 * own_size:
        found.append(
            f"'{spec.model.name}' draws {own_size} pixels a side: resolution {resolution} will train it badly."
        )
    if spec.model.zero_terminal_snr and spec.model.prediction_type == "epsilon":
        found.append(
            "zeroTerminalSnr leaves no noise to predict at the last timestep: set predictionType v_prediction."
        )
    return found


def _option_warnings(options: TrainingOptions) -> list[str]:
    found = []
    if options.optimizer == "ScheduleFreeAdamW":
        if options.lr_scheduler != "constant":
            found.append(f"ScheduleFreeAdamW has no use for lrScheduler {options.lr_scheduler}: the rate is constant.")
        if options.ema:
            found.append("ScheduleFreeAdamW averages the weights itself: ema is off.")
    if options.optimizer == "Prodigy" and options.text_encoder_learning_rate is not None:
        found.append("Prodigy adapts one rate for all: textEncoderLearningRate has no effect.")
    if options.file_format == "diffusers":
        found.append(
            f"fileFormat diffusers is for {READERS['diffusers']}: kohya and both write a file for all of them."
        )
    return found
