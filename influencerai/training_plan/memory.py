"""Memory: how much this machine has, and which setting needs less of it."""

from __future__ import annotations

import os

from influencerai.domain import TrainingSpec


def physical_memory_bytes() -> int:
    """Memory of this machine; a container's limit may be lower."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def smaller_setting(spec: TrainingSpec) -> str:
    """Advice: the change that reduces the memory of the training."""
    config = spec.config
    if not spec.plan.gradient_checkpointing:
        return "Set gradientCheckpointing to true: the same result with less memory and more time."
    if config.batch_size > 1:
        half = config.batch_size // 2
        steps = spec.options.gradient_accumulation * 2
        return f"Set batchSize to {half} and gradientAccumulation to {steps}: about the same training."
    if spec.options.train_text_encoder:
        return "Set trainTextEncoder to false."
    return smaller_images(spec)


def smaller_images(spec: TrainingSpec) -> str:
    """Advice: the change that reduces the memory of one image."""
    if spec.config.resolution > 512:
        return f"Set resolution to {spec.config.resolution * 3 // 4 // 64 * 64}."
    return "Use a device with more memory, or a smaller networkDim."
