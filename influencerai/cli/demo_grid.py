"""The demo's pictures: the same prompts from the same noise, without and with a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from influencerai.cli.drawing import drawing_progress, save_picture
from influencerai.demo.characters import MODEL_ID
from influencerai.demo.spec import DEMO_PROMPTS
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.domain import ExecutionPlan

SEED = 1
"""Of every picture in a grid, before and after."""


def draw_before_after(
    grids: Mapping[Path, Path], *, settings: Settings, plan: ExecutionPlan | None = None, as_json: bool
) -> None:
    """Write for each LoRA file the picture whose path it is mapped to: a row per prompt, before and after.

    `plan` says on what it is drawn; by default what the settings and this machine give.
    """
    from influencerai.generate.grid import image_grid
    from influencerai.generate.sampler import Sampler

    sampler = Sampler(MODEL_ID, settings=settings, plan=plan)
    with drawing_progress("drawing without a LoRA", as_json=as_json) as on_progress:
        before = sampler.draw(DEMO_PROMPTS, seed=SEED, count=2, on_progress=on_progress)
    for lora, path in grids.items():
        with drawing_progress(f"drawing with {lora.name}", as_json=as_json) as on_progress:
            after = sampler.draw(DEMO_PROMPTS, lora=lora, seed=SEED, count=2, on_progress=on_progress)
        pairs = zip(DEMO_PROMPTS, before, after, strict=True)
        rows = [(prompt, [*without, *with_]) for prompt, without, with_ in pairs]
        save_picture(image_grid(rows, columns=("base model", "", "with the LoRA", "")), path)
