"""The notebooks as they are committed: executed to the end, with their pictures, and without traces of a machine.

`make check` executes the first one too, `make campaign` all of them, with fewer epochs: the metadata `nbmake` of a cell
has their number.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
TRACES = re.compile(r"site-packages|/(home|root|tmp)/|Traceback|Warning")


def code_cells(path: Path) -> list[dict[str, Any]]:
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks_for_each_way() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_first_lora",
        "02_remote_client",
        "03_comparing_checkpoints",
        "04_sweep",
    ]


@by_name
def test_it_was_executed_from_the_top(path: Path) -> None:
    counts = [cell["execution_count"] for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@by_name
def test_it_shows_pictures(path: Path) -> None:
    shown = [data for cell in code_cells(path) for output in cell["outputs"] for data in [output.get("data", {})]]
    assert any("image/png" in data for data in shown)
    assert any("data:image/png" in data.get("text/html", "") for data in shown)


@by_name
def test_it_says_nothing_of_the_machine_that_executed_it(path: Path) -> None:
    outputs = json.dumps([cell["outputs"] for cell in code_cells(path)])
    text = re.sub(r"[A-Za-z0-9+/=]{200,}", "", outputs)  # pictures
    assert TRACES.search(text) is None


@by_name
def test_links_lead_to_files_that_exist(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", path.read_text("utf-8"))
    assert [target for target in targets if "://" not in target and not (path.parent / target).exists()] == []
