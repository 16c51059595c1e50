"""`influencerai dataset`: look at a folder of pictures, or write a sample one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from influencerai.cli.common import dataset_argument, output_options
from influencerai.cli.outcome import FAILED, print_result
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.dataset import DatasetReport
    from influencerai.training_plan import TrainingPlan


def _png(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """A click callback: refuse another format before anything is read."""
    if path and path.suffix.lower() != ".png":
        raise click.BadParameter(f"'{path}' does not end in .png.")
    return path


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
  influencerai dataset check data/datasets/me --contact-sheet sheet.png
\b
Exits with 1 if a file or the folder has an error; with --strict also if there is a warning."""
)
@dataset_argument
@click.option("--trigger-word", help="Word that every caption should have; captions images that have none.")
@click.option("--resolution", type=click.IntRange(128, 2048), default=512, show_default=True, help="In pixels.")
@click.option("--batch-size", type=click.IntRange(1, 64), default=1, show_default=True, help="Images per pass.")
@click.option("--repeats", type=click.IntRange(1, 1000), default=1, show_default=True, help="Times per epoch.")
@click.option("--epochs", type=click.IntRange(1, 1000), default=10, show_default=True, help="Passes over all.")
@click.option(
    "--aspect-ratio-buckets/--no-aspect-ratio-buckets",
    default=True,
    show_default=True,
    help="Train each image in a size near its own shape.",
)
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path),
    callback=_png,
    metavar="PNG",
    help="Draw all images into one picture.",
)
@click.option("--verbose", is_flag=True, help="Name every file of each finding.")
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
@output_options
def check(
    *,
    dataset: str,
    trigger_word: str | None,
    resolution: int,
    batch_size: int,
    repeats: int,
    epochs: int,
    aspect_ratio_buckets: bool,
    contact_sheet: Path | None,
    verbose: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Say what is wrong with which file in DATASET, and how many steps a training on it takes."""
    from influencerai.cli.common import standard_output
    from influencerai.cli.dataset_tables import plan_document, print_findings, print_plan
    from influencerai.dataset import inspect_dataset, samples
    from influencerai.domain import LoraConfig
    from influencerai.training_plan import Outline, TrainingPlan

    settings = Settings.load()
    report = inspect_dataset(
        settings.root / dataset,
        trigger_word=trigger_word,
        resolution=resolution,
        max_pixels=settings.max_image_pixels,
        follow_links=True,
    )
    plan = None
    if report.usable and not report.errors:
        config = LoraConfig(
            name="check",
            model_name="any",
            epochs=epochs,
            resolution=resolution,
            batch_size=batch_size,
            meta={"repeats": repeats, "aspectRatioBuckets": aspect_ratio_buckets},
        )
        plan = TrainingPlan(Outline(config=config, options=config.options, samples=samples(report)))
    if contact_sheet:
        _draw_contact_sheet(report, plan, to=contact_sheet, settings=settings)
    if as_json:
        document = {"dataset": report.to_wire(), "plan": plan_document(plan) if plan else None}
        print_result({**document, **({"contactSheet": str(contact_sheet)} if contact_sheet else {})})
    else:
        console = standard_output()
        print_findings(console, report, verbose=verbose)
        if plan:
            print_plan(console, plan)
        if contact_sheet:
            click.echo(f"Contact sheet: {contact_sheet}")
    has_warning = report.warning_count or (plan and plan.warnings)
    if report.error_count or (strict and has_warning):
        click.get_current_context().exit(FAILED)


def _draw_contact_sheet(report: DatasetReport, plan: TrainingPlan | None, *, to: Path, settings: Settings) -> None:
    """Write the contact sheet of an inspected dataset.

    Raises:
        DatasetError: there is no image to draw.
        InfluencerAIError: the file system refuses.
    """
    from influencerai.dataset.contact_sheet import contact_sheet
    from influencerai.errors import DatasetError
    from influencerai.files import atomic_file

    if not report.images:
        raise DatasetError(f"{report.folder} cannot be drawn: {' '.join(report.errors)}")
    crops = {image.path: plan.crop(index) for index, image in enumerate(report.usable)} if plan else {}
    sheet = contact_sheet(Path(report.folder), report.images, crops=crops, max_pixels=settings.max_image_pixels)
    atomic_file.write_atomic(to, sheet)


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
    from influencerai.demo.sample_set import choose_character, write_sample_set

    settings = Settings.load()
    name = choose_character(character)
    count = write_sample_set(name, folder=settings.root / out)
    if as_json:
        print_result({"path": out, "character": name, "imageCount": count})
    else:
        click.echo(f"Wrote the character '{name}', {count} pictures with captions, to {out}.")
