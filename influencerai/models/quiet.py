"""Silence notices of other libraries, written for programmers; users get events and errors instead."""

from __future__ import annotations

import logging

import diffusers.utils.logging as diffusers_logging
import transformers.utils.logging as transformers_logging
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars


def quiet_libraries() -> None:
    """Turn off bars for reading weights, and notices about what is not installed or not in a LoRA.

    The hub's progress bars stay: users want to see downloads.
    """
    hub_bars = not are_progress_bars_disabled()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    if hub_bars:
        enable_progress_bars()
    transformers_logging.set_verbosity_error()
    logging.getLogger("diffusers.loaders.lora_base").setLevel(logging.ERROR)
