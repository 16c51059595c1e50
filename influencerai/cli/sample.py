"""`influencerai sample`: a grid of pictures drawn with LoRAs, the base model beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from influencerai.basemodel import find_base_model
from influencerai.cli.common import output_options
from influencerai.cli.drawing import (
    check_folder_place,
    check_picture_name,
    check_picture_place,
    check_size,
    drawing_progress,
    free_name,
    pictures_folder,
    save_picture,
)
from influencerai.cli.lora_sources import LoraSource, choose_loras, named_lora, parse_checkpoints
from influencerai.cli.outcome import print_result
from influencerai.errors import InfluencerAIError, ModelError
from influencerai.packages import check_train_packages
from influencerai.preflight import find_model, noted
from influencerai.progress.text import short_path
from influencerai.settings import Settings
from influencerai.train.light_check import raise_faults

if TYPE_CHECKING:
    from influencerai.generate.lora_comparison import Drawn

STRENGTHS = (-4.0, 4.0)
DEFAULT_OUT = Path("grid.png")
_HINT = "Name the base model with --model."


def _parse_strengths(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[float, ...]:
    """A click callback: `0.6,0.8,1` as numbers, each once; the option may be repeated."""
    value = ",".join(values)
    try:
        found = tuple(dict.fromkeys(float(part) for part in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"'{value}' is no list of numbers such as 0.6,0.8,1.") from None
    if not all(STRENGTHS[0] <= number <= STRENGTHS[1] for number in found):
        raise click.BadParameter(f"'{value}' leaves the range from {STRENGTHS[0]:g} to {STRENGTHS[1]:g}.")
    return found


@click.command(
    short_help="Draw a grid of pictures with LoRAs.",
    epilog="""\b
Examples:
  influencerai sample data/loras/me --prompt "ohwx woman, smiling"
  influencerai sample data/loras/me --checkpoints 5,10,20 --strength 0.6,0.8,1 --prompt "ohwx" --count 1
  influencerai sample me.safetensors other.safetensors --model sd15 --prompt "ohwx" --separate --out me.png
\b
A column per LoRA file or strength, the base model first; the same noise in every column.
--out is relative to the current directory. No file is overwritten without --overwrite.""",
)
@click.argument("loras", nargs=-1, required=True, metavar="LORA...", callback=named_lora)
@click.option("--prompt", "prompts", multiple=True, required=True, help="A section of the grid; repeatable.")
@click.option(
    "--checkpoints",
    multiple=True,
    callback=parse_checkpoints,
    metavar="all|last|EPOCHS",
    help="Of a run's folder: all (default), last, or epochs such as 1,5,10.",
)
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    default=["1"],
    callback=_parse_strengths,
    metavar="NUMBERS",
    help="Of the LoRAs: one number, or several such as 0.6,0.8,1.  [default: 1]",
)
@click.option("--base/--no-base", "with_base", default=True, help="The base model alone as the first column, or not.")
@click.option("--model", help="Base model; default: the one that the LoRA's file names.")
@click.option("--count", type=click.IntRange(1, 64), help="Pictures per prompt.  [default: 4, or 2 of many]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first; then one more each.")
@click.option("--steps", type=click.IntRange(1, 1000), default=25, show_default=True, help="Denoising steps.")
@click.option("--guidance", type=click.FloatRange(0, 100), default=5.0, show_default=True, help="Guidance scale.")
@click.option("--negative-prompt", default="", help="What should not be in the pictures.")
@click.option("--size", type=click.IntRange(64, 4096), help="Pixels of a side; default: what the LoRA was trained at.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=check_picture_name,
    help="Grid to write.  [default: grid.png, or grid-2.png and so on where that is taken]",
)
@click.option("--separate", is_flag=True, help="Also write every picture, into a folder named like the grid.")
@click.option("--overwrite", is_flag=True, help="Replace files of the same names.")
@output_options
def sample(
    *,
    loras: Sequence[str],
    prompts: tuple[str, ...],
    checkpoints: str | None,
    strengths: tuple[float, ...],
    with_base: bool,
    model: str | None,
    count: int | None,
    seed: int,
    steps: int,
    guidance: float,
    negative_prompt: str,
    size: int | None,
    out: Path | None,
    separate: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare LoRA files, checkpoints of a run's folder and strengths in one labelled grid.

    Every LORA is a file in either layout, or the output folder of a run.
    """
    check_train_packages()
    settings = Settings.load()
    grid_path = out or free_name(DEFAULT_OUT, overwrite=overwrite)
    folder = pictures_folder(grid_path) if separate else None
    faults: list[InfluencerAIError] = []
    sources = choose_loras(loras, root=settings.root, checkpoints=checkpoints, faults=faults)
    found = _find_base(sources, model, settings=settings, faults=faults) if sources else None
    check_picture_place(grid_path, overwrite=overwrite, faults=faults)
    if folder:
        check_folder_place(folder, overwrite=overwrite, faults=faults)
    raise_faults(faults)
    assert found is not None

    from influencerai.generate.lora_comparison import Candidate, LoraComparison
    from influencerai.generate.sampler import Sampler

    much = len(sources) * len(strengths) > 1
    comparison = LoraComparison(
        candidates=[Candidate(label=source.label, path=source.path) for source in sources],
        strengths=strengths,
        prompts=prompts,
        count=count or (2 if much else 4),
        seed=seed,
        with_base=with_base,
        size=size,
        steps=steps,
        guidance=guidance,
        negative_prompt=negative_prompt,
    )
    sampler = Sampler(found.path, settings=settings, label=found.name)
    try:
        check_size(grid_path, comparison, side=sampler.side(lora=sources[0].path, size=size))
        with drawing_progress("drawing", as_json=as_json) as on_progress:
            drawn = comparison.draw(sampler, on_progress=on_progress)
    except ModelError as error:
        raise _with_hint(error, model) from error
    save_picture(drawn.grid(title=_title(drawn, model=found.name)), grid_path)
    written = _save_separately(drawn, folder) if folder else []
    if as_json:
        print_result(
            {
                "path": str(grid_path),
                "modelName": found.name,
                "pictures": comparison.total,
                "columns": comparison.columns,
                "separate": [str(path) for path in written],
            }
        )
        return
    click.echo(f"Grid: {short_path(grid_path)}")
    if folder:
        click.echo(f"Pictures: {len(written)} in {short_path(folder)}")


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The base model to draw with: its name in the pictures, what the sampler opens, and its family where known."""

    name: str
    path: str
    family: str | None


def _find_base(
    sources: Sequence[LoraSource], model: str | None, *, settings: Settings, faults: list[InfluencerAIError]
) -> _Base | None:
    """The base model that the user or else the files name; what forbids it is appended to `faults`."""
    before = len(faults)
    with noted(faults):
        try:
            base = _named(model, settings=settings) if model else _of_files(sources, settings=settings)
            for source in sources:
                if base.family:
                    source.description.check_family(base.family, lora=source.path, model_name=base.name)
        except ModelError as error:
            raise _with_hint(error, model) from error
    return base if len(faults) == before else None


def _named(model: str, *, settings: Settings) -> _Base:
    """What --model names; a model that is downloaded first has no family yet."""
    found = find_model(model, settings=settings, as_path=True, warnings=[])
    return _Base(name=model, path=model, family=found.family if found else None)


def _of_files(sources: Sequence[LoraSource], *, settings: Settings) -> _Base:
    """The model that all files name. They may be a stranger's: nothing is downloaded, nor opened anywhere else."""
    names = {source.description.model_name: source for source in sources}
    if None in names:
        raise ModelError(f"{names[None].path} does not say which base model it was trained on.")
    if len(names) > 1:
        said = "; ".join(f"{source.path} on '{name}'" for name, source in names.items())
        raise ModelError(f"The files were trained on different base models: {said}.")
    (name,) = names
    found = find_base_model(str(name), models_dirs=settings.models_dirs, as_path=False)
    return _Base(name=str(name), path=str(found.path.absolute()), family=found.family)


def _with_hint(error: ModelError, model: str | None) -> ModelError:
    if model is None and _HINT not in (error.remedy or ""):
        error.remedy = f"{error.remedy} Or name another base model with --model." if error.remedy else _HINT
    return error


def _title(drawn: Drawn, *, model: str) -> str:
    """What all pictures of the grid share."""
    asked = drawn.comparison
    parts = [model, f"{asked.steps} steps", f"guidance {asked.guidance:g}"]
    if len(asked.strengths) == 1:
        parts.append(f"strength {asked.strengths[0]:g}")
    elif len(asked.candidates) == 1:
        parts.insert(0, asked.candidates[0].label)
    return ", ".join(parts) + (f", without: {asked.negative_prompt}" if asked.negative_prompt else "")


def _save_separately(drawn: Drawn, folder: Path) -> list[Path]:
    paths = []
    for name, image in drawn.pictures():
        paths.append(folder / f"{name}.png")
        save_picture(image, paths[-1])
    return paths
