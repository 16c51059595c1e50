"""`influencerai lora`: what is in a LoRA file."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from influencerai.cli.common import output_options, standard_output
from influencerai.cli.lora_sources import choose_lora, named_lora
from influencerai.cli.outcome import print_result
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.lora.adapter_file import AdapterFile

_TOP_TAGS = 10
_ABSENT = ("", "None", "null")
_FIELDS = {
    "title": ("modelspec.title", "ss_output_name"),
    "triggerPhrase": ("modelspec.trigger_phrase",),
    "baseModel": ("ss_sd_model_name",),
    "baseModelVersion": ("ss_base_model_version",),
    "predictionType": ("modelspec.prediction_type",),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "steps": ("ss_steps",),
    "epoch": ("ss_epoch",),
    "epochs": ("ss_num_epochs",),
    "images": ("ss_num_train_images",),
    "learningRate": ("ss_unet_lr", "ss_learning_rate"),
    "optimizer": ("ss_optimizer",),
    "seed": ("ss_seed",),
    "date": ("modelspec.date",),
    "description": ("modelspec.description", "ss_training_comment"),
}
"""Facts of a training, and the metadata keys that may hold each, the better one first."""


@click.group(short_help="Show what is in a LoRA file.")
def lora() -> None:
    """LoRA files of any trainer."""


@lora.command(
    short_help="Show family, rank, modules and training of a LoRA file.",
    epilog="""\b
Examples:
  influencerai lora info data/loras/me
  influencerai lora info data/loras/me/me-final.safetensors
  influencerai lora info me.safetensors --json""",
)
@click.argument("file", callback=named_lora)
@output_options
def info(*, file: str, as_json: bool) -> None:
    """Show what FILE, a LoRA, LoHa, LoKr, DoRA or OFT of any trainer, contains and states about its training.

    Of a run's folder it is the file that `sample --checkpoints last` takes. A relative FILE is below INFLUENCERAI_ROOT.
    The weights are only hashed.
    """
    from influencerai.lora.adapter_file import read_adapter

    found = read_adapter(choose_lora(file, root=Settings.load().root))
    document = describe(found)
    if as_json:
        print_result({**document, "metadata": dict(found.header.metadata)})
    else:
        _print(document)


def describe(found: AdapterFile) -> dict[str, Any]:
    """The JSON form, without the file's own metadata."""
    from influencerai.basemodel.weight_file import file_sha256
    from influencerai.files import safetensors_file

    path, metadata = found.header.path, found.header.metadata
    sha256, model_hash = file_sha256(path), safetensors_file.model_hash_of_file(path)
    stated = {
        field: next((metadata[key] for key in keys if metadata.get(key, "") not in _ABSENT), None)
        for field, keys in _FIELDS.items()
    }
    return {
        "path": str(path),
        "sizeBytes": path.stat().st_size,
        "kind": found.kind,
        "layout": found.layout,
        "readers": found.readers,
        "family": found.family,
        "ranks": list(found.ranks),
        "alphas": list(found.alphas),
        "modules": len(found.modules),
        "kinds": dict(Counter(found.modules.values())),
        "components": found.components,
        "targets": found.targets,
        **stated,
        "tags": [{"tag": tag, "count": count} for tag, count in _tags(metadata.get("ss_tag_frequency", ""))],
        "hashes": {"sha256": sha256, "autoV2": sha256[:10], "modelHash": model_hash, "autoV3": model_hash[:12]},
    }


def _tags(text: str) -> list[tuple[str, int]]:
    """The most frequent tags of all folders; empty where the metadata has none that can be parsed."""
    counts: Counter[str] = Counter()
    try:
        for folder in json.loads(text).values():
            counts.update({str(tag): int(count) for tag, count in folder.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []
    return counts.most_common(_TOP_TAGS)


def _print(document: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from influencerai.progress.text import visible

    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counts.items())

    numbers = {name: " and ".join(f"{number:g}" for number in document[name]) for name in ("ranks", "alphas")}
    epochs = f"{document['epoch'] or '?'} of {document['epochs'] or '?'}"
    base = document["baseModel"] or "not stated"
    rows = {
        "File": f"{document['path']} ({document['sizeBytes'] / 1e6:.1f} MB)",
        "Title": document["title"],
        "Kind": f"{document['kind']}, rank {numbers['ranks'] or '?'}, alpha {numbers['alphas'] or 'as the rank'}",
        "Family": document["family"] or "unknown",
        "Base model": base,
        "Modules": f"{document['modules']} ({listed(document['components'])}; {listed(document['targets'])})",
        "Trigger phrase": document["triggerPhrase"] or "not stated",
        "Top tags": ", ".join(f"{entry['tag']} ({entry['count']})" for entry in document["tags"]),
        "Training": f"{document['steps']} steps, epoch {epochs}" if document["steps"] else None,
        "Resolution": document["resolution"],
        "Layout": f"{document['layout']}: for {document['readers']}",
        "Hashes": f"AutoV2 {document['hashes']['autoV2']}, AutoV3 {document['hashes']['autoV3']}",
        "SHA-256": document["hashes"]["sha256"],
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        if value:
            table.add_row(f"[bold]{name}", escape(visible(str(value))))
    standard_output().print(table)
