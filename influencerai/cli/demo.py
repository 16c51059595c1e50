"""`influencerai demo`: the whole way, from pictures to pictures, offline and in a few minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from influencerai.cli.common import output_options
from influencerai.cli.outcome import print_result
from influencerai.cli.progress import short_path
from influencerai.demo.characters import list_characters
from influencerai.demo.spec import demo_config
from influencerai.settings import Settings

COUNT = 2
"""Characters of a demo that names none."""


@click.command(
    short_help="Serve, train sample characters, draw before and after.",
    epilog="""\b
Examples:
  influencerai demo
  influencerai demo --out /tmp/demo --resume
  influencerai demo --local --character leo
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
@click.option(
    "--character",
    "characters",
    multiple=True,
    help="Which sample character; may be given several times.  [default: the first two; with --local the first]",
)
@click.option("--local", is_flag=True, help="Train one character in this process, without a server.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted demo.")
@output_options
def demo(*, out: Path, characters: Sequence[str], local: bool, resume: bool, as_json: bool) -> None:
    """Start a server, have it train LoRAs of two sample characters for two tenants at the same time, and draw the same
    prompts from the same noise before and after."""
    from influencerai.cli.characters import choose_character

    chosen = list(dict.fromkeys(choose_character(name) for name in characters))
    if local:
        if len(chosen) > 1:
            raise click.UsageError("--local trains one character: give --character once.")
        run_local_demo(chosen[0] if chosen else choose_character(None), out=out, resume=resume, as_json=as_json)
        return
    from influencerai.cli.demo_whole import run_whole_demo

    run_whole_demo(chosen or list_characters()[:COUNT], out=out, resume=resume, as_json=as_json)


def run_local_demo(name: str, *, out: Path, resume: bool, as_json: bool, epochs: int = 100) -> None:
    """Train a LoRA of one character on the embedded base model, here, and draw before and after."""
    from influencerai.cli.characters import write_sample_set
    from influencerai.cli.demo_grid import draw_before_after
    from influencerai.cli.training import run_training
    from influencerai.demo.characters import changed_files

    begun = time.monotonic()
    settings = Settings.load(root=out)
    dataset = settings.root / "datasets" / name
    if not changed_files(name, dataset):
        write_sample_set(name, folder=dataset)
    run = run_training(
        demo_config(name=name, output_path=f"loras/{name}", epochs=epochs),
        dataset,
        settings=settings,
        resume=resume,
        as_json=as_json,
    )
    loss_plot, grid = out / "loss.png", out / "before-after.png"
    run.plot(loss_plot)
    draw_before_after({run.lora_path: grid}, settings=settings, plan=run.spec.plan, as_json=as_json)
    minutes = (time.monotonic() - begun) / 60
    if as_json:
        document = {"character": name, "grid": str(grid), "lossPlot": str(loss_plot), "minutes": round(minutes, 2)}
        print_result({**run.result.to_wire(), **document, "loraPath": str(run.lora_path)})
        return
    click.echo(f"Trained '{name}' in {run.result.training_time_minutes:.1f} of {minutes:.1f} minutes.")
    click.echo(
        f"Before and after: {grid}\nLoss plot:        {loss_plot}\nLoRA:             {short_path(run.lora_path)}"
    )
