"""The notebooks as pages of the site: their texts, code and committed outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_NOTEBOOK = re.compile(r"\]\((\w+)\.ipynb\)")
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """MkDocs calls this once, with the pages that it has found."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page_of(path)))
    return files


def page_of(path: Path) -> str:
    """The notebook in Markdown; pictures and tables stand as HTML, other outputs as text."""
    notebook = nbformat.read(path, as_version=4)
    parts = [_cell(cell) for cell in notebook.cells]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cell(cell: Any) -> str:
    if cell.cell_type == "markdown":
        return _NOTEBOOK.sub(r"](\1.md)", str(cell.source)).replace("](../docs/", "](../")
    if cell.cell_type != "code" or not cell.source.strip():
        return ""
    return "\n\n".join([f"```python\n{cell.source}\n```", *filter(None, map(_output, cell.outputs))])


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return _text(output.text)
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="Output of the cell" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return f"<div>{data['text/html']}</div>".replace("\n", " ")
    return _text(data.get("text/plain", ""))


def _text(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
