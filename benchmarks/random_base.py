"""Full-size base models with random weights, made on the spot: benchmarks need the shapes, not the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from influencerai.basemodel.components import CONFIGS
from influencerai.models.loadable_model import LoadableModel
from influencerai.models.model_components import MODULES, empty_module


@dataclass(frozen=True, kw_only=True)
class RandomBase(LoadableModel):
    """A base model without files: every component is initialised where it is loaded, the same each time."""

    @classmethod
    def of(cls, family: str) -> RandomBase:
        return cls(
            name=family,
            path=CONFIGS / family,
            layout="single_file",
            family=family,
            prediction_type="epsilon",
            zero_terminal_snr=False,
            configs=CONFIGS / family,
        )

    def load(self, component: str, *, dtype: torch.dtype = torch.float32) -> Any:
        if component not in MODULES:
            return super().load(component, dtype=dtype)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        module = empty_module(component, self.config(component)).to(dtype).to_empty(device=device)
        generator = torch.Generator(device).manual_seed(sum(f"{self.family}/{component}".encode()))
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02, generator=generator)
            else:
                nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
        for name, buffer in module.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1])[None])
        return module.eval()

    def fingerprint(self, component: str | None = None) -> str:
        return f"random-{self.family}-{component or 'all'}"


def random_dataset(folder: Path, side: int, *, count: int = 16) -> None:
    """Square pictures of noise with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise = torch.randint(
            0, 256, (side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(index)
        )
        Image.frombytes("RGB", (side, side), noise.numpy().tobytes()).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(f"ohwx person, picture {index}")
