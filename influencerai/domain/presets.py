"""Presets: the product's three starting points, to be overridden field by field."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from influencerai.domain.training_options import TrainingOptions
from influencerai.domain.wire import SchemaOf, WireModel

PresetName = Literal["conservative", "balanced", "fast"]


def _meta(images_seen: int) -> dict[str, Any]:
    return {"optimizer": "AdamW8bit", "lrScheduler": "cosine", "minSnrGamma": 5, "imagesSeen": images_seen}


class Preset(WireModel):
    """A named set of values for a config's fields."""

    name: PresetName
    description: str
    learning_rate: float
    epochs: int
    batch_size: int
    network_dim: int
    network_alpha: float
    meta: Annotated[dict[str, Any], SchemaOf(TrainingOptions)] = Field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """The preset's values by the wire names of `LoraConfig`, without its required name and modelName."""
        return {name: value for name, value in self.to_wire().items() if name not in ("name", "description")}


PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                name="conservative",
                description="Slow and sure: most steps, lowest rate, largest file.",
                learning_rate=3e-5,
                epochs=30,
                batch_size=1,
                network_dim=32,
                network_alpha=16,
                meta=_meta(3000),
            ),
            Preset(
                name="balanced",
                description="What to start with.",
                learning_rate=1e-4,
                epochs=20,
                batch_size=2,
                network_dim=16,
                network_alpha=8,
                meta=_meta(2000),
            ),
            Preset(
                name="fast",
                description="A first look: fewest steps, smallest file.",
                learning_rate=5e-4,
                epochs=10,
                batch_size=4,
                network_dim=8,
                network_alpha=4,
                meta=_meta(1500),
            ),
        )
    }
)
