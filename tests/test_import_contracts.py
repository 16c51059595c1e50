"""The import contracts name every room, so that a new one cannot stay outside of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS: dict[str, dict[str, Any]] = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def rooms() -> set[str]:
    """The modules and packages directly inside influencerai."""
    return {
        f"influencerai.{path.stem}"
        for path in (ROOT / "influencerai").iterdir()
        if not path.stem.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }


def test_every_room_has_its_place_in_the_one_direction() -> None:
    placed = {name for layer in CONTRACTS["direction"]["layers"] for name in re.findall(r"[\w.]+", layer)}
    assert placed == rooms()


@pytest.mark.parametrize(
    ("contract", "allowed"),
    [
        ("torch", {"influencerai.live", "influencerai.train"}),
        ("terminal", {"influencerai.cli", "influencerai.live"}),
        ("ray", {"influencerai.cluster", "influencerai.serve"}),
        ("sql", {"influencerai.store"}),
        ("web", {"influencerai.serve"}),
        ("pictures", {"influencerai.demo", "influencerai.imageset", "influencerai.train"}),
    ],
)
def test_every_room_but_the_allowed_ones_is_under_the_contract(contract: str, allowed: set[str]) -> None:
    assert set(CONTRACTS[contract]["source_modules"]) == rooms() - allowed
