"""A project folder with a small dataset and a small random base model, and the program in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from influencerai.cli.main import main
from tests.small_models import small_sd15
from tests.training_runs import write_dataset

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/faces` and `models/small`; shared, so tests write to output folders of their own."""
    root = tmp_path_factory.mktemp("project")
    write_dataset(root / "data" / "faces", count=3)
    small_sd15(root / "models" / "small")
    return root


@pytest.fixture
def invoke(project: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the program in this process, in the project's folder."""
    monkeypatch.chdir(project)
    for name, value in {"DEVICE": "cpu", "THREADS": "2", "ALLOW_DOWNLOADS": "false"}.items():
        monkeypatch.setenv(f"INFLUENCERAI_{name}", value)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def json_lines(text: str) -> list[dict[str, Any]]:
    """What a command with --json printed."""
    return [json.loads(line) for line in text.splitlines()]
