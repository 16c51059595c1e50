"""The demo's training, and the prompts that show what it has learned; the quality benchmark uses the same."""

from __future__ import annotations

from typing import Final

from influencerai.demo.captions import TRIGGER
from influencerai.demo.characters import MODEL_ID
from influencerai.domain import LoraConfig

DEMO_PROMPTS: Final = (
    f"portrait of {TRIGGER}, smiling, blue background",
    f"portrait of {TRIGGER}, sad, yellow background",
    f"portrait of {TRIGGER}, serious, wearing a green hoodie",
    f"portrait of {TRIGGER}, winking, wearing a red t-shirt, pink background",
)
"""What changes, never the identity: that is what the LoRA has to know."""


def demo_config(*, name: str = "demo", output_path: str | None = None, epochs: int = 100) -> LoraConfig:
    """The embedded model, each picture shown once per epoch in batches of 4, at the model's own 128 pixels."""
    return LoraConfig(
        name=name,
        model_name=MODEL_ID,
        epochs=epochs,
        learning_rate=1e-3,
        batch_size=4,
        resolution=128,
        network_dim=16,
        network_alpha=16,
        output_path=output_path,
        meta={"optimizer": "AdamW", "seed": 42, "triggerWord": TRIGGER},
    )
