"""`influencerai sample`: a grid of pictures drawn with a LoRA."""

from __future__ import annotations

from pathlib import Path

import click

from influencerai.cli.common import output_options
from influencerai.cli.drawing import (
    check_picture_name,
    check_picture_place,
    drawing_progress,
    largest_grid,
    save_picture,
)
from influencerai.cli.outcome import print_result
from influencerai.errors import ModelError
from influencerai.settings import Settings


@click.command(
    short_help="Draw a grid of pictures with a LoRA.",
    epilog="""\b
Examples:
  influencerai sample data/loras/me/me-final.safetensors --prompt "ohwx woman, smiling"
  influencerai sample me.safetensors --model sd15 --prompt "ohwx" --count 4 --strength 0.7 --out me.png
\b
--out is a file relative to the current directory, and is overwritten.""",
)
@click.argument("lora")
@click.option("--prompt", "prompts", multiple=True, required=True, help="A row of pictures; repeatable.")
@click.option("--model", help="Base model; default: the one that the LoRA's file names.")
@click.option("--count", type=click.IntRange(1, 64), default=4, show_default=True, help="Pictures per prompt.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first; then one more each.")
@click.option("--steps", type=click.IntRange(1, 1000), default=25, show_default=True, help="Denoising steps.")
@click.option("--guidance", type=click.FloatRange(0, 100), default=5.0, show_default=True, help="Guidance scale.")
@click.option("--strength", type=click.FloatRange(-4, 4), default=1.0, show_default=True, help="Of the LoRA.")
@click.option("--negative-prompt", default="", help="What should not be in the pictures.")
@click.option("--size", type=click.IntRange(64, 4096), help="Pixels of a side; default: what the LoRA was trained at.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("grid.png"),
    show_default=True,
    callback=check_picture_name,
    help="Picture to write.",
)
@output_options
def sample(
    *,
    lora: str,
    prompts: tuple[str, ...],
    model: str | None,
    count: int,
    seed: int,
    steps: int,
    guidance: float,
    strength: float,
    negative_prompt: str,
    size: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Draw --count pictures of every --prompt with LORA, a file in either layout, into one labelled grid."""
    from influencerai.basemodel import find_base_model
    from influencerai.train.grid import image_grid
    from influencerai.train.sampler import Sampler, describe_lora

    settings = Settings.load()
    path = settings.root / lora
    model_name = model or describe_lora(path).model_name
    if model_name is None:
        raise ModelError(f"{path} does not say which base model it was trained on.", remedy="Name it with --model.")
    try:
        if model is None:
            # The file may be a stranger's: what it names is not downloaded, nor opened anywhere else.
            found = find_base_model(model_name, models_dirs=settings.models_dirs, as_path=False)
            sampler = Sampler(str(found.path.absolute()), settings=settings)
        else:
            sampler = Sampler(model, settings=settings)
        side = sampler.side(lora=path, size=size)
        width, height = largest_grid(side, rows=len(prompts), columns=count)
        check_picture_place(out, width=width, height=height)
        with drawing_progress("drawing", as_json=as_json) as on_progress:
            rows = sampler.draw(
                prompts,
                lora=path,
                strength=strength,
                count=count,
                seed=seed,
                size=size,
                steps=steps,
                guidance=guidance,
                negative_prompt=negative_prompt,
                on_progress=on_progress,
            )
    except ModelError as error:
        if model is None:
            error.remedy = f"{error.remedy or ''} Or name another base model with --model.".strip()
        raise
    save_picture(image_grid(list(zip(prompts, rows, strict=True))), out)
    if as_json:
        print_result({"path": str(out), "modelName": model_name, "pictures": count * len(prompts)})
    else:
        click.echo(f"Grid: {out}")
