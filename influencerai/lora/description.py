"""LoraDescription: the metadata in the safetensors header of a LoRA file, read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from influencerai.basemodel.weight_file import read_lora_header
from influencerai.domain.training_options import PredictionType
from influencerai.errors import ModelError

_SMALLEST, _LARGEST = 64, 4096
_PREDICTION_TYPES: Final[dict[str, PredictionType]] = {"epsilon": "epsilon", "v": "v_prediction"}
_BOOLEANS: Final = {"True": True, "False": False}


@dataclass(frozen=True, kw_only=True)
class LoraDescription:
    """Metadata of a LoRA file; None where the file lacks it."""

    model_name: str | None
    base_model_version: str | None
    resolution: int | None
    """Pixels: the shorter side that it was trained at, if that is one to draw at."""
    base_fingerprint: str | None
    """Of the base model's weights, in files that InfluencerAI wrote."""
    prediction_type: PredictionType | None
    zero_terminal_snr: bool | None
    epoch: int | None
    """After which the file was written."""
    sha256: str | None
    """Over the tensors, as kohya's trainer and A1111 know the file."""

    def check_family(self, family: str, *, lora: Path, model_name: str) -> None:
        """Refuse a base model of another family.

        Trainers call the versions of a base by many names, but SDXL's all begin with `sdxl_`.

        Raises:
            ModelError: according to its metadata the file was trained on the other family.
        """
        version = self.base_model_version
        if version and version.startswith("sdxl_") != (family == "sdxl"):
            raise ModelError(
                f"{lora} was trained on a base of the kind {version}; '{model_name}' is of the family {family}.",
                remedy="Name the base model that it was trained on.",
            )


def describe_lora(path: Path) -> LoraDescription:
    """Read what the header of a LoRA file tells.

    Raises:
        ModelError: the file is missing, truncated, a base model, no safetensors file or not named as one.
    """
    metadata = read_lora_header(path).metadata
    if not path.name.endswith(".safetensors"):
        raise ModelError(
            f"{path} is not called .safetensors.", remedy=f"Rename it to {path.stem}.safetensors: programs go by that."
        )
    epoch = metadata.get("ss_epoch", "")
    return LoraDescription(
        model_name=metadata.get("ss_sd_model_name"),
        base_model_version=metadata.get("ss_base_model_version"),
        resolution=_resolution(metadata.get("modelspec.resolution") or metadata.get("ss_resolution") or ""),
        base_fingerprint=metadata.get("ss_influencerai_base_fingerprint"),
        prediction_type=_PREDICTION_TYPES.get(metadata.get("modelspec.prediction_type", "")),
        zero_terminal_snr=_BOOLEANS.get(metadata.get("ss_zero_terminal_snr", "")),
        epoch=int(epoch) if epoch.isascii() and epoch.isdigit() and len(epoch) < 10 else None,
        sha256=metadata.get("sshs_model_hash"),
    )


def _resolution(text: str) -> int | None:
    """The smallest number in `text`, where it is a side that pictures can have."""
    sides = re.findall(r"[0-9]+", text)
    if not sides or max(map(len, sides)) > len(str(_LARGEST)):
        return None
    side = min(map(int, sides))
    return side if _SMALLEST <= side <= _LARGEST else None
