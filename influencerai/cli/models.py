"""`influencerai models`: the base models that are here, and bringing one here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from influencerai.cli.common import output_options, standard_output
from influencerai.cli.outcome import print_result
from influencerai.errors import ModelError
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.basemodel.inventory import ListedAlias, ListedModel


@click.group(short_help="List base models, or download one.")
def models() -> None:
    """Base models in the models folder, which INFLUENCERAI_MODELS_DIR names."""


@models.command(
    "list",
    short_help="List the base models that are here.",
    epilog="""\b
Examples:
  influencerai models list
  influencerai models list --json""",
)
@output_options
def list_(*, as_json: bool) -> None:
    """List the base models in the models folders with family, size, precision and licence, and say which of sd15 and
    sdxl are here. Weights are not read."""
    from influencerai.basemodel.inventory import list_aliases, list_models

    settings = Settings.load()
    found, aliases = list_models(settings.models_dirs), list_aliases(settings.models_dirs)
    if as_json:
        print_result(
            {"models": [model_document(model) for model in found], "aliases": [alias.to_wire() for alias in aliases]}
        )
        return
    _print_models(found)
    for alias in aliases:
        click.echo(alias_line(alias))


@models.command(
    short_help="Download a base model into the models folder.",
    epilog="""\b
Examples:
  influencerai models get sdxl
  influencerai models get Lykon/dreamshaper-8 --to /srv/influencerai
\b
Without network, copy the model by hand: the error names the folder.""",
)
@click.argument("model")
@click.option("--to", "root", type=click.Path(path_type=Path), help="Root whose models folder gets it; default: here.")
@output_options
def get(*, model: str, root: Path | None, as_json: bool) -> None:
    """Download MODEL, an alias (sd15, sdxl) or a hub id: configurations, tokenizers and one variant of the weights.

    An interrupted download continues.
    """
    from influencerai.basemodel import find_base_model, hub
    from influencerai.basemodel.search import ALIASES, hub_id_of

    settings = Settings.load()
    folder = settings.models_dir if root is None else root / "models"
    hub_id = hub_id_of(model)
    if hub_id is None:
        raise ModelError(
            f"'{model}' is neither an alias nor a hub id.", remedy=f"Name {', '.join(ALIASES)}, or ORG/NAME of the hub."
        )
    try:
        base = find_base_model(model, models_dirs=[folder], as_path=False)
    except ModelError:
        if not settings.allow_downloads:
            raise ModelError(
                f"'{model}' is not in {folder}, and downloads are turned off.",
                remedy=f"Set INFLUENCERAI_ALLOW_DOWNLOADS=true, or copy the model to {folder / hub_id}.",
            ) from None
        hub.download(hub_id, models_dirs=[folder], into=folder / hub_id)
        base = find_base_model(model, models_dirs=[folder], as_path=False)
    if as_json:
        print_result({"name": model, "path": str(base.path), "family": base.family})
    else:
        click.echo(f"{model}: {base.path} ({base.family}). Train with: influencerai train DATASET --model {model}")


def model_document(model: ListedModel) -> dict[str, Any]:
    """The JSON form."""
    return {
        "name": model.name,
        "path": str(model.path),
        "ok": model.base is not None,
        "family": model.base and model.base.family,
        "layout": model.base and model.base.layout,
        "predictionType": model.base and model.base.prediction_type,
        "precision": model.precision,
        "sizeBytes": model.size_bytes,
        "licence": model.licence,
        "fault": model.fault,
        "warnings": list(model.base.warnings) if model.base else [],
    }


def alias_line(alias: ListedAlias) -> str:
    """Where a well-known model is, or how to get it."""
    if alias.path:
        return f"{alias.alias}: {alias.path}"
    return f"{alias.alias} is not here. {alias.remedy}"


def _print_models(found: list[ListedModel]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from influencerai.progress.text import visible

    table = Table("Model", "Family", "Size", "Precision", "Licence", "Layout", box=None, pad_edge=False)
    broken = [model for model in found if model.base is None]
    for model in found:
        if model.base is not None:
            values = (
                model.name,
                model.base.family,
                f"{model.size_bytes / 1e9:.2f} GB",
                model.precision or "unknown",
                model.licence or "not stated",
                model.base.layout.replace("_", " "),
            )
            table.add_row(*(escape(visible(value)) for value in values))
    console = standard_output()
    if table.row_count:
        console.print(table)
    for model in broken:
        console.print(f"[yellow]Cannot be used:[/] {escape(visible(model.fault or ''))}", soft_wrap=True)
