"""`influencerai demo`: everything from training images to generated ones, offline and in a few minutes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from influencerai.cli.common import output_options
from influencerai.cli.outcome import print_result
from influencerai.cli.resume_command import program_name
from influencerai.demo.characters import list_characters
from influencerai.demo.spec import demo_config
from influencerai.progress.text import short_path
from influencerai.settings import Settings

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from influencerai.demo.run.whole import DemoResult

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
@click.option("--resume", is_flag=True, help="Continue an interrupted demo.")
@output_options
def demo(*, out: Path, characters: Sequence[str], local: bool, resume: bool, as_json: bool) -> None:
    """Start a server, have it train LoRAs of two sample characters for two tenants at the same time, and draw the same
    prompts from the same noise before and after."""
    from influencerai.demo.sample_set import choose_character

    chosen = list(dict.fromkeys(choose_character(name) for name in characters))
    if local:
        if len(chosen) > 1:
            raise click.UsageError("--local trains one character: give --character once.")
        run_local_demo(chosen[0] if chosen else choose_character(None), out=out, resume=resume, as_json=as_json)
        return
    run_served_demo(chosen or list_characters()[:COUNT], out=out, resume=resume, as_json=as_json)


def run_served_demo(
    characters: Sequence[str], *, out: Path, resume: bool, as_json: bool, epochs: int | None = None
) -> None:
    """Train the characters on a server of their own, and print what was made."""
    from influencerai.cli.demo_output import DemoOutput
    from influencerai.demo.run import whole

    view = DemoOutput(characters, as_json=as_json)
    found = whole.run_whole_demo(characters, out=out, epochs=epochs or whole.EPOCHS, resume=resume, view=view)
    if as_json:
        print_result(_document(found))
        return
    click.echo(f"Trained {' and '.join(item.character for item in found.trained)} in {found.minutes:.1f} minutes.")
    for item in found.trained:
        click.echo(f"{item.character}:")
        click.echo(f"  before and after: {short_path(found.grids[item.character])}\n  LoRA: {short_path(item.lora)}")
    root, tenant, name = shlex.quote(short_path(found.server.root)), found.trained[0].tenant, program_name()
    click.echo(f"The server's log: {short_path(found.server.log)}")
    click.echo(
        f"""
To start the same server again with these jobs; its page is then http://127.0.0.1:3001/api:
  {name} serve --root {root}
In another terminal, all jobs of a tenant, and those that are active:
  {name} jobs list --tenant {tenant}
  {name} jobs watch --tenant {tenant}"""
    )


def _document(found: DemoResult) -> dict[str, Any]:
    made = [
        {
            "character": item.character,
            "tenant": item.tenant,
            "jobId": item.job.id,
            "grid": str(found.grids[item.character]),
            "loraPath": str(item.lora),
            "finalLoss": (item.job.result or {}).get("finalLoss"),
            "trainingTimeMinutes": (item.job.result or {}).get("trainingTimeMinutes"),
        }
        for item in found.trained
    ]
    where = {"root": str(found.server.root), "log": str(found.server.log)}
    return {"characters": made, **where, "minutes": round(found.minutes, 2)}


def run_local_demo(name: str, *, out: Path, resume: bool, as_json: bool, epochs: int = 100) -> None:
    """Train a LoRA of one character on the embedded base model, here, and draw before and after."""
    from influencerai.cli.demo_output import DemoOutput
    from influencerai.cli.training import run_training
    from influencerai.demo.characters import changed_files
    from influencerai.demo.run.before_after import draw_before_after
    from influencerai.demo.sample_set import write_sample_set

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
    view = DemoOutput([name], as_json=as_json)
    draw_before_after({run.lora_path: grid}, settings=settings, plan=run.spec.plan, view=view)
    minutes = (time.monotonic() - begun) / 60
    if as_json:
        document = {"character": name, "grid": str(grid), "lossPlot": str(loss_plot), "minutes": round(minutes, 2)}
        print_result({**run.result.to_wire(), **document, "loraPath": str(run.lora_path)})
        return
    click.echo(f"Trained '{name}' in {run.result.training_time_minutes:.1f} of {minutes:.1f} minutes.")
    click.echo(
        f"Before and after: {grid}\nLoss plot:        {loss_plot}\nLoRA:             {short_path(run.lora_path)}"
    )
