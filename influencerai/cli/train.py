"""`influencerai train`: a LoRA from a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from influencerai.cli.common import dataset_argument, output_options
from influencerai.cli.config_options import ConfigCommand, config_options, given_fields
from influencerai.cli.lora_sources import named_lora
from influencerai.cli.outcome import DONE, FAILED, print_result
from influencerai.cli.run_end import end_lines
from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.presets import PresetName
from influencerai.progress.text import short_path
from influencerai.settings import Settings
from influencerai.training_plan.config_sources import (
    ConfigLayer,
    assignment_layer,
    file_layer,
    preset_layer,
    resolve_config,
)


@click.command(
    cls=ConfigCommand,
    short_help="Train a LoRA on a folder of pictures.",
    epilog="""\b
Examples:
  influencerai train data/datasets/me --model sd15 --trigger-word ohwx
  influencerai train data/datasets/me --model sdxl --preset balanced --resolution 1024
  influencerai train data/datasets/me --config me.yaml --set minSnrGamma=null
  influencerai train data/datasets/me --config me.yaml --resume
\b
--set overrides options, options over --config, --config over --preset.
Ctrl-C saves a training state and prints the command that continues.""",
)
@dataset_argument
@click.option("--model", "--model-name", "model_name", help="Base model: sd15, sdxl, a hub id, a folder or a file.")
@click.option("--name", help="Name of the config; default: that of the output folder, or of the dataset.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="Config as YAML or JSON.")
@click.option("--preset", type=click.Choice(get_args(PresetName)), help="What to start from.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any field, as JSON; repeatable.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the newest run for the same output folder, also to more --epochs; start one where there is none.",
)
@click.option(
    "--init-from",
    metavar="LORA|RUN",
    callback=named_lora,
    help="Start with the weights of a LoRA file, or of a run's folder.",
)
@click.option("--dry-run", is_flag=True, help="Check everything and show the plan; train and store nothing.")
@click.option("--strict", is_flag=True, help="Refuse to train where there is a warning.")
@click.option("--backend", default="diffusers", show_default=True, help="What executes the run; or: dry-run.")
@output_options
@config_options
def train(
    *,
    dataset: str,
    model_name: str | None,
    name: str | None,
    file: Path | None,
    preset: PresetName | None,
    assignments: tuple[str, ...],
    resume: bool,
    init_from: str | None,
    dry_run: bool,
    strict: bool,
    backend: str,
    as_json: bool,
    **values: Any,
) -> int:
    """Train a LoRA on the pictures and captions in DATASET.

    An option that can be null takes the word `none`.
    """
    settings = Settings.load()
    given = {"modelName": model_name, "name": name}
    options = ConfigLayer(
        fields={key: value for key, value in given.items() if value is not None} | given_fields(values, LoraConfig),
        meta=given_fields(values, TrainingOptions),
    )
    layers = [assignment_layer(assignments), options]
    layers += [file_layer(file)] if file else []
    layers += [preset_layer(preset)] if preset else []
    resolved = resolve_config(layers, default_name=(settings.root / dataset).resolve().name or "lora")
    if dry_run:
        from influencerai.cli.preflight import show_preflight

        show_preflight(resolved, dataset, settings=settings, init_from=init_from, strict=strict, as_json=as_json)
        return DONE

    from influencerai.cli.training import run_training

    run = run_training(
        resolved.config,
        dataset,
        settings=settings,
        backend=backend,
        resume=resume,
        init_from=init_from,
        warnings=(*settings.warnings, *resolved.warnings),
        strict=strict,
        as_json=as_json,
    )
    code = FAILED if run.result.learned is False else DONE
    if as_json:
        best = run.best_epoch
        where = {
            "runDir": str(run.run_dir),
            "bestEpoch": best.epoch if best else None,
            "bestFile": str(best.file) if best else None,
        }
        print_result({**run.result.to_wire(), **where})
        return code
    if run.result.learned is False:
        click.echo(f"Trained nothing: {short_path(run.lora_path)} holds nothing new.")
        return code
    for line in end_lines(run):
        click.echo(line)
    return code
