"""The demo's images: the same prompts from the same noise, without and with a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from influencerai.demo.characters import MODEL_ID
from influencerai.demo.run.view import DemoView
from influencerai.demo.spec import DEMO_PROMPTS
from influencerai.files import atomic_file
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.domain import ExecutionPlan

SEED = 1
"""Of every image in a grid, before and after."""


def draw_before_after(
    grids: Mapping[Path, Path], *, settings: Settings, plan: ExecutionPlan | None = None, view: DemoView
) -> None:
    """Write for each LoRA file the PNG that it is mapped to: a row per prompt, before and after.

    `plan` is the execution plan to draw with; by default the one of these settings on this machine.
    """
    from influencerai.generate.grid import image_grid
    from influencerai.generate.picture_record import encoded
    from influencerai.generate.sampler import Sampler

    sampler = Sampler(MODEL_ID, settings=settings, plan=plan)
    with view.drawing("drawing without a LoRA") as on_progress:
        before = sampler.draw(DEMO_PROMPTS, seed=SEED, count=2, on_progress=on_progress)
    for lora, path in grids.items():
        with view.drawing(f"drawing with {lora.name}") as on_progress:
            after = sampler.draw(DEMO_PROMPTS, lora=lora, seed=SEED, count=2, on_progress=on_progress)
        pairs = zip(DEMO_PROMPTS, before, after, strict=True)
        rows = [(prompt, [*without, *with_]) for prompt, without, with_ in pairs]
        grid = image_grid(rows, columns=("base model", "", "with the LoRA", ""))
        atomic_file.write_atomic(path, encoded(grid, format_name="PNG"))
