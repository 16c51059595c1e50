"""`influencerai dataset`: look at a folder of pictures, or write a sample one."""

from __future__ import annotations

import click

from influencerai.cli.common import output_options
from influencerai.cli.outcome import FAILED, print_result
from influencerai.settings import Settings


@click.group(short_help="Check a folder of pictures, or write a sample one.")
def dataset() -> None:
    """Check a folder of pictures, or write a sample one.

    \b
    Example:
      influencerai dataset check data/datasets/me --trigger-word ohwx
    """


@dataset.command(
    epilog="""\b
Examples:
  influencerai dataset check data/datasets/me --trigger-word ohwx
  influencerai dataset check data/datasets/me --resolution 1024 --json
\b
Exits with 1 if a file or the folder has an error; warnings do not count."""
)
@click.argument("dataset")
@click.option("--trigger-word", help="Word that every caption should have; captions images that have none.")
@click.option("--resolution", type=click.IntRange(128, 2048), default=512, show_default=True, help="In pixels.")
@click.option("--batch-size", type=click.IntRange(1, 64), default=1, show_default=True, help="Images per pass.")
@click.option("--repeats", type=click.IntRange(1, 1000), default=1, show_default=True, help="Times per epoch.")
@click.option("--epochs", type=click.IntRange(1, 1000), default=10, show_default=True, help="Passes over all.")
@output_options
def check(
    *,
    dataset: str,
    trigger_word: str | None,
    resolution: int,
    batch_size: int,
    repeats: int,
    epochs: int,
    as_json: bool,
) -> None:
    """Say what is wrong with which file in DATASET, and how many steps a training on it takes."""
    from influencerai.cli.common import standard_output
    from influencerai.cli.dataset_tables import plan_document, print_findings, print_plan
    from influencerai.domain import LoraConfig
    from influencerai.imageset import inspect_imageset, samples
    from influencerai.planning import BatchPlan, Outline

    settings = Settings.load()
    report = inspect_imageset(
        settings.root / dataset,
        trigger_word=trigger_word,
        resolution=resolution,
        max_pixels=settings.max_image_pixels,
    )
    plan = None
    if report.usable and not report.errors:
        config = LoraConfig(
            name="check",
            model_name="any",
            epochs=epochs,
            resolution=resolution,
            batch_size=batch_size,
            meta={"repeats": repeats},
        )
        plan = BatchPlan(Outline(config=config, options=config.options, samples=samples(report)))
    if as_json:
        print_result({"dataset": report.to_wire(), "plan": plan_document(plan) if plan else None})
    else:
        console = standard_output()
        print_findings(console, report)
        if plan:
            print_plan(console, plan)
    if report.error_count:
        click.get_current_context().exit(FAILED)


@dataset.command(
    epilog="""\b
Example:
  influencerai dataset demo data/datasets/demo
  influencerai train data/datasets/demo --model influencerai/tiny-avatars --resolution 128"""
)
@click.argument("out")
@click.option("--character", help="Which sample character; default: the first.")
@output_options
def demo(*, out: str, character: str | None, as_json: bool) -> None:
    """Write a sample character, 20 pictures with captions, into the folder OUT."""
    from influencerai.cli.characters import choose_character, write_sample_set

    settings = Settings.load()
    name = choose_character(character)
    count = write_sample_set(name, folder=settings.root / out)
    if as_json:
        print_result({"path": out, "character": name, "imageCount": count})
    else:
        click.echo(f"Wrote the character '{name}', {count} pictures with captions, to {out}.")
