"""Every package has its place in the one direction of imports."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONTRACTS: dict[str, dict[str, Any]] = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def test_every_package_is_in_a_layer() -> None:
    placed = {name for layer in CONTRACTS["direction"]["layers"] for name in re.findall(r"[\w.]+", layer)}
    there = {
        f"influencerai.{path.stem}"
        for path in (ROOT / "influencerai").iterdir()
        if not path.stem.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    assert placed == there
