"""The components of the Stable Diffusion families: names, classes and configurations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influencerai.domain.training_options import PredictionType
from influencerai.errors import ModelError
from influencerai.files.atomic_file import open_regular

CONFIGS = Path(__file__).parent / "configs"
"""Configurations of the families' components, for single files: `<family>/<component>/config.json`."""

CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
"""Class of every component that has weights, as a model_index.json names it."""

TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Tokenizer of every text encoder."""

VOCABULARIES = ("tokenizer.json", "vocab.json")
"""Files of a tokenizer's folder that hold its vocabulary; either will do."""

COMPONENTS = {
    "sd15": ("unet", "vae", "text_encoder", "tokenizer"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
}
"""Components of every family, the scheduler's configuration aside."""


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """The kind of a model, as its files describe it."""

    family: str
    prediction_type: PredictionType
    zero_terminal_snr: bool
    warnings: tuple[str, ...]
    """Parts of the files that no component uses."""


_CONFIG_NAMES = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
}


def read_config(folder: Path, component: str) -> dict[str, Any]:
    """The configuration of one component of a diffusers folder.

    Raises:
        ModelError: it is missing or no JSON object.
    """
    return read_json(folder / component / _CONFIG_NAMES.get(component, "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelError: the file is missing or holds something else.
    """
    remedy = "Download or copy the model again."
    try:
        with open_regular(path) as file:
            document = json.load(file)
    except FileNotFoundError as error:
        raise ModelError(f"The base model lacks {path}.", remedy=remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", remedy=remedy) from error
    if not isinstance(document, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object.", remedy=remedy)
    return document


def noise_schedule(path: Path, scheduler: dict[str, Any]) -> tuple[PredictionType, bool]:
    """Prediction type and zero terminal SNR that a scheduler's configuration states.

    Raises:
        ModelError: the model was trained in a way that is not supported, such as EDM.
    """
    class_name = str(scheduler.get("_class_name", ""))
    prediction = scheduler.get("prediction_type", "epsilon")
    if class_name.startswith(("EDM", "Flow")) or prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{path} is made for {class_name} with prediction type '{prediction}', which is not supported.",
            remedy="Use a base model that predicts the noise (epsilon) or v (v_prediction).",
        )
    return prediction, bool(scheduler.get("rescale_betas_zero_snr", False))
