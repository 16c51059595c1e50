"""Write the tables of docs/*.md from the descriptions of the fields: python tools/write_docs.py

A table stands between `<!-- table: NAME -->` and `<!-- end table -->`; the text around it is written by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from influencerai.domain import LoraConfig, TrainingOptions
from influencerai.settings import ENV_PREFIX, Settings

DOCS = Path(__file__).parents[1] / "docs"
MODELS: dict[str, type[BaseModel]] = {
    "LoraConfig": LoraConfig,
    "TrainingOptions": TrainingOptions,
    "Settings": Settings,
}
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def render(text: str) -> str:
    """`text` with every table written anew."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{table(MODELS[found[2]])}\n\n{found[3]}", text)


def table(model: type[BaseModel]) -> str:
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
    return "`".join(part.replace("<", "\\<") if index % 2 == 0 else part for index, part in enumerate(parts))


def main() -> None:
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
