"""`influencerai demo`: the whole way, from pictures to pictures, offline and in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from influencerai.cli.common import output_options
from influencerai.cli.outcome import print_result
from influencerai.cli.progress import short_path
from influencerai.demo.characters import MODEL_ID
from influencerai.demo.spec import DEMO_PROMPTS, demo_config
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.train.run import Run

SEED = 1
"""Of every picture in the grid, before and after."""


@click.command(
    short_help="Train on a sample character and draw before and after.",
    epilog="""\b
Examples:
  influencerai demo
  influencerai demo --out /tmp/demo --resume
\b
Takes a few minutes on two CPU cores. --out is relative to the current directory.""",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for everything that the demo writes.",
)
@click.option("--character", help="Which sample character; default: the first.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted demo.")
@output_options
def demo(*, out: Path, character: str | None, resume: bool, as_json: bool) -> None:
    """Train a LoRA of a sample character on the embedded base model, and draw the same prompts from the same noise
    before and after."""
    from influencerai.cli.characters import choose_character, write_sample_set
    from influencerai.cli.training import run_training
    from influencerai.demo.characters import changed_files

    begun = time.monotonic()
    settings = Settings.load(root=out)
    name = choose_character(character)
    dataset = settings.root / "datasets" / name
    if not changed_files(name, dataset):
        write_sample_set(name, folder=dataset)
    run = run_training(
        demo_config(name=name, output_path=f"loras/{name}"),
        dataset,
        settings=settings,
        resume=resume,
        as_json=as_json,
    )
    loss_plot = out / "loss.png"
    run.plot(loss_plot)
    grid = draw_before_after(run, settings=settings, path=out / "before-after.png", as_json=as_json)
    minutes = (time.monotonic() - begun) / 60
    if as_json:
        document = {"character": name, "grid": str(grid), "lossPlot": str(loss_plot), "minutes": round(minutes, 2)}
        print_result({**run.result.to_wire(), **document, "loraPath": str(run.lora_path)})
        return
    click.echo(f"Trained '{name}' in {run.result.training_time_minutes:.1f} of {minutes:.1f} minutes.")
    click.echo(
        f"Before and after: {grid}\nLoss plot:        {loss_plot}\nLoRA:             {short_path(run.lora_path)}"
    )


def draw_before_after(run: Run, *, settings: Settings, path: Path, as_json: bool) -> Path:
    """A row per prompt: the base model alone, then with the LoRA, from the same seed."""
    from influencerai.cli.drawing import drawing_progress, save_picture
    from influencerai.train.grid import image_grid
    from influencerai.train.sampler import Sampler

    sampler = Sampler(MODEL_ID, settings=settings, plan=run.spec.plan)
    with drawing_progress("drawing without the LoRA", as_json=as_json) as on_progress:
        before = sampler.draw(DEMO_PROMPTS, seed=SEED, count=2, on_progress=on_progress)
    with drawing_progress("drawing with the LoRA", as_json=as_json) as on_progress:
        after = sampler.draw(DEMO_PROMPTS, lora=run.lora_path, seed=SEED, count=2, on_progress=on_progress)
    rows = [(prompt, [*without, *with_]) for prompt, without, with_ in zip(DEMO_PROMPTS, before, after, strict=True)]
    save_picture(image_grid(rows, columns=("base model", "", "with the LoRA", "")), path)
    return path
