"""A project folder with a small dataset and a small random base model, and the program in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from influencerai import InfluencerAIClient
from influencerai.cli.main import main
from influencerai.settings import Settings
from tests.serve.running import ANN
from tests.serve.sockets import Served, served
from tests.small_models import small_sd15
from tests.training_runs import write_dataset

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def surroundings() -> Iterator[None]:
    """What a server sets for its own process stays without effect on other tests: its mask, and missing secrets."""
    mask, variables = os.umask(0), dict(os.environ)
    os.umask(mask)
    yield
    os.umask(mask)
    os.environ.clear()
    os.environ.update(variables)


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
    for name, value in {"DEVICE": "cpu", "THREADS": "1", "ALLOW_DOWNLOADS": "false"}.items():
        monkeypatch.setenv(f"INFLUENCERAI_{name}", value)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def server(settings: Settings) -> Iterator[Served]:
    """A server over the settings, which the module says."""
    with served(settings) as running:
        yield running


@pytest.fixture
def client(server: Served) -> Iterator[InfluencerAIClient]:
    """Of the tenant ann."""
    with InfluencerAIClient(server.url, tenant_id=ANN, on_warning=lambda text: None) as opened:
        yield opened


def json_lines(text: str) -> list[dict[str, Any]]:
    """What a command with --json printed."""
    return [json.loads(line) for line in text.splitlines()]
