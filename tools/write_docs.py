"""Write the tables of docs/*.md from the code that they are about: python -m tools.write_docs

A table, or the API's examples, stands between `<!-- table: NAME -->` and `<!-- end table -->`; the text around it is
written by hand. NAME is one of a model whose fields it lists, or one of `TABLES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.domain.presets import PRESETS
from influencerai.errors import InfluencerAIError
from influencerai.scheduling.resource_options import resource_options
from influencerai.serve.app import create_app
from influencerai.serve.errors import STATUS
from influencerai.serve.examples import ANSWERS, REQUESTS
from influencerai.service import Service
from influencerai.settings import ENV_PREFIX, Settings
from influencerai.worker.outcome import OUTCOME_RULES

DOCS = Path(__file__).parents[1] / "docs"
MODELS: dict[str, type[BaseModel]] = {
    "LoraConfig": LoraConfig,
    "TrainingOptions": TrainingOptions,
    "Settings": Settings,
}
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def render(text: str) -> str:
    """`text` with every table written anew."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}", text)


def table(name: str) -> str:
    """The table of this name."""
    return TABLES[name]() if name in TABLES else fields(MODELS[name])


def errors() -> str:
    """One line per class of errors: its code, the name in Python, the HTTP status, what it means and what helps."""
    lines = ["| code | in Python | HTTP | what it means | what helps |", "|---|---|---|---|---|"]
    for error in error_classes():
        kind, number = next(row for row in STATUS if issubclass(error, row[0]))
        status = "" if kind is InfluencerAIError is not error else number  # what no request is answered with
        meaning = (error.__doc__ or "").strip().splitlines()[0]
        cells = (f"`{error.code}`", f"`{error.__name__}`", str(status), meaning, error.advice)
        lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    return "\n".join(lines)


def error_classes(root: type[InfluencerAIError] = InfluencerAIError) -> list[type[InfluencerAIError]]:
    """The public errors, those of one kind together."""
    below = [found for error in root.__subclasses__() for found in error_classes(error)]
    return [root, *(error for error in below if error.__module__ == root.__module__)]


def routes() -> str:
    """One line per route of the API, by the parts that its page has."""
    document = create_app(Service(Settings(database_url="sqlite:///absent.db"))).openapi()
    lines = ["| method | path | what it does |", "|---|---|---|"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            meaning = operation.get("description", operation["summary"]).strip().splitlines()[0]
            lines.append(f"| {method.upper()} | `{path}` | {_escape(meaning)} |")
    return "\n".join(lines)


def examples() -> str:
    """A request and its answer for each resource, and what a job has become."""
    made = (("/datasets", "create_dataset"), ("/lora-configs", "create_lora_config"), ("/jobs", "create_job"))
    parts = [
        f"`POST {path}` with\n\n{_json_block(REQUESTS[name])}\n\nis answered with\n\n{_json_block(ANSWERS[name])}"
        for path, name in made
    ]
    return "\n\n".join([*parts, f"`GET /jobs/{{id}}`, later:\n\n{_json_block(ANSWERS['get_job'])}"])


def outcomes() -> str:
    """One line per rule of an attempt's outcome; the first that matches decides."""
    lines = ["| last message | requested | outcome | what becomes of the job |", "|---|---|---|---|"]
    for rule in OUTCOME_RULES:
        cells = (rule.last_message or "any", rule.requested or "any", rule.outcome, rule.follows)
        lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _json_block(document: Any) -> str:
    return f"```json\n{json.dumps(document, ensure_ascii=False, indent=2)}\n```"


def presets() -> str:
    """One line per preset."""
    lines = [
        "| preset | what for | images seen | learning rate | epochs | batch | rank / alpha |",
        "|---|---|---|---|---|---|---|",
    ]
    for preset in PRESETS.values():
        rank = f"{preset.network_dim} / {preset.network_alpha:g}"
        numbers = (
            f"{preset.meta['imagesSeen']:,} | {preset.learning_rate:g} | {preset.epochs} | {preset.batch_size} | {rank}"
        )
        lines.append(f"| `{preset.name}` | {preset.description} | {numbers} |")
    return "\n".join(lines)


def memory() -> str:
    """Gigabytes of a GPU that a training is given, by family, resolution and batch, with checkpointing and without."""
    columns = [(saves, size) for saves in (False, True) for size in (1, 2, 4)]
    titles = [f"batch {size}{', checkpointing' if saves else ''}" for saves, size in columns]
    lines = [f"| model | resolution | {' | '.join(titles)} |", "|---|---|" + "---|" * len(columns)]
    for family, resolution in (("sd15", 512), ("sd15", 768), ("sdxl", 768), ("sdxl", 1024)):
        cells = [f"{device_gb(family, resolution, batch_size=size, saves=saves):g}" for saves, size in columns]
        lines.append(f"| {family} | {resolution} | {' | '.join(cells)} |")
    return "\n".join(lines)


def device_gb(family: str, resolution: int, *, batch_size: int, saves: bool) -> float:
    """GPU memory for a training of rank 16 with AdamW8bit in bf16."""
    meta = {"optimizer": "AdamW8bit", "gradientCheckpointing": saves}
    config = LoraConfig(
        name="memory", model_name=family, resolution=resolution, batch_size=batch_size, network_dim=16, meta=meta
    )
    return resource_options(config, family=family, kind="cuda", threads=1)[0].request.device_gb


def fields(model: type[BaseModel]) -> str:
    """One line per field: its name on the wire or in the environment, values, default and description."""
    properties = model.model_json_schema(by_alias=True)["properties"]
    lines = ["| name | values | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        wire_name = field.alias or name
        shown = f"`{name}`, `{ENV_PREFIX}{name.upper()}`" if model is Settings else f"`{wire_name}`"
        cells = (shown, values(properties[wire_name]), _default(field), field.description or "")
        lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    return "\n".join(lines)


def values(schema: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(values(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {values(schema['items'])}{_bound(schema.get('maxItems'), ', at most {}')}"
    if kind == "string":
        return "path" if schema.get("format") == "path" else f"text{_bound(schema.get('maxLength'), ' up to {}')}"
    low = _bound(schema.get("minimum"), " from {}") + _bound(schema.get("exclusiveMinimum"), " above {}")
    high = _bound(schema.get("maximum"), " to {}") + _bound(schema.get("exclusiveMaximum"), " below {}")
    return f"{kind}{low}{high}"


def _bound(value: float | None, text: str) -> str:
    return "" if value is None else text.format(f"{value:g}" if isinstance(value, float) else value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None and field.default_factory not in (dict, list):
        return "see meaning"
    default = field.get_default(call_default_factory=True)
    return f"`{json.dumps(default)}`"


def _escape(cell: str) -> str:
    """Markdown that shows `|` and, outside of code, `<` as they are."""
    parts = cell.replace("|", "\\|").split("`")
    return "`".join(part.replace("<", "&lt;") if index % 2 == 0 else part for index, part in enumerate(parts))


TABLES: dict[str, Callable[[], str]] = {
    "errors": errors,
    "examples": examples,
    "memory": memory,
    "outcomes": outcomes,
    "presets": presets,
    "routes": routes,
}


def main() -> None:
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
