"""PictureRecord: how a picture was drawn, carried inside its file.

A1111 and the programs that read its pictures find the text `parameters`; `influencerai` holds the same as JSON.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from PIL.ExifTags import IFD, Base
from PIL.Image import Exif, Image
from PIL.PngImagePlugin import PngInfo

PARAMETERS: Final = "parameters"
OWN: Final = "influencerai"
SOFTWARE: Final = "Software"
"""Key of grids and contact sheets: dataset inspection excludes pictures with it from training."""
SHORT_HASH = 12
"""Digits of a LoRA's hash as A1111 shows them."""

_SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DDPMScheduler": "DDPM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}
"""A1111's names of diffusers' schedulers."""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """A base model as a picture names it."""

    name: str
    sha256: str | None = None
    """Of the model's file; None for a folder."""


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """A LoRA that a picture was drawn with."""

    name: str
    """Of its file, without the suffix."""
    strength: float
    sha256: str | None = None
    """Over the file's tensors, which is kohya's `sshs_model_hash`; None while the LoRA is in training."""


@dataclass(frozen=True, kw_only=True)
class PictureRecord:
    """Everything that decides one picture; `lora` is None for the base model alone."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    sampler: str
    guidance: float
    width: int
    height: int
    model: ModelIdentity
    lora: LoraUse | None = None
    epoch: int | None = None
    """Of the training that the picture was drawn in; 0 before the first step."""

    @property
    def parameters(self) -> str:
        """In A1111's form: the prompt with the LoRA's tag, the negative prompt, and a line of settings."""
        lora = self.lora
        tag = f" <lora:{lora.name}:{lora.strength:g}>" if lora else ""
        lines = [f"{self.prompt}{tag}"]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        settings: dict[str, Any] = {
            "Steps": self.steps,
            "Sampler": self.sampler,
            "CFG scale": f"{self.guidance:g}",
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model hash": self.model.sha256 and self.model.sha256[:10],
            "Model": re.sub("[,:]", "", self.model.name),
            "Lora hashes": f"{lora.name}: {lora.sha256[:SHORT_HASH]}" if lora and lora.sha256 else None,
            "Version": _program(),
        }
        lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items() if value is not None))
        return "\n".join(lines)

    @property
    def document(self) -> dict[str, Any]:
        """For programs, in camelCase; what is absent is left out."""
        lora = self.lora
        found = {
            "program": _program(),
            "prompt": self.prompt,
            "negativePrompt": self.negative_prompt,
            "seed": self.seed,
            "steps": self.steps,
            "sampler": self.sampler,
            "guidance": self.guidance,
            "width": self.width,
            "height": self.height,
            "model": self.model.name,
            "modelSha256": self.model.sha256,
            "lora": lora and _present({"name": lora.name, "strength": lora.strength, "sha256": lora.sha256}),
            "epoch": self.epoch,
        }
        return _present(found)

    def attach(self, image: Image) -> Image:
        """Let `image` carry the record, so that `encoded` writes it."""
        image.info |= {PARAMETERS: self.parameters, OWN: json.dumps(self.document, ensure_ascii=False)}
        return image


def encoded(image: Image, *, format_name: str = "PNG") -> bytes:
    """The picture as a file: its record as text chunks of a PNG, as EXIF's user comment of a JPEG or WebP."""
    texts = {name: str(image.info[name]) for name in (SOFTWARE, PARAMETERS, OWN) if name in image.info}
    data = io.BytesIO()
    if format_name == "PNG":
        chunks = PngInfo()
        for name, text in texts.items():
            chunks.add_text(name, text)
        image.save(data, format=format_name, pnginfo=chunks)
    else:
        image.save(data, format=format_name, exif=_exif(texts.get(PARAMETERS, "")), quality=92)
    return data.getvalue()


def sampler_name(scheduler: object) -> str:
    """A1111's name of a diffusers scheduler, or its class's."""
    name = type(scheduler).__name__
    return _SAMPLERS.get(name, name)


def model_label(name: str) -> str:
    """A base model's name without the folders of this machine; an alias or a hub id as it is."""
    path = Path(name).expanduser()
    return path.name.removesuffix(".safetensors") if path.is_absolute() or path.exists() else name


def grid_record(images: Iterable[Image], *, columns: Iterable[str]) -> dict[str | tuple[int, int], Any]:
    """The texts of a grid: the first picture's parameters, as A1111's grids have them, and every picture's record."""
    records = [image.info for image in images]
    pictures = [json.loads(record[OWN]) for record in records if OWN in record]
    if not pictures:
        return {SOFTWARE: "InfluencerAI"}
    document = {"program": _program(), "columns": list(columns), "pictures": pictures}
    first = next(str(record[PARAMETERS]) for record in records if PARAMETERS in record)
    return {SOFTWARE: "InfluencerAI", PARAMETERS: first, OWN: json.dumps(document, ensure_ascii=False)}


def _exif(text: str) -> Exif:
    exif = Exif()
    if text:
        exif.get_ifd(IFD.Exif)[Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be", errors="replace")
    return exif


def _present(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def _program() -> str:
    return f"influencerai {version('influencerai')}"


def _quoted(value: object) -> str:
    """As A1111 writes a setting: in JSON's quotes where it would end the setting."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
