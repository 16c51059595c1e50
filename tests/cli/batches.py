"""Places for tests of batches: a root with a few pictures and files that say what to train on them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from influencerai.cli.main import main
from influencerai.demo.characters import MODEL_ID, write_character
from influencerai.settings import Settings
from tests.cli.conftest import json_lines
from tests.databases import Databases
from tests.serve.running import ANN

SETTINGS = {
    "INFLUENCERAI_DEVICE": "cpu",
    "INFLUENCERAI_THREADS": "1",
    "INFLUENCERAI_ALLOW_DOWNLOADS": "false",
    "SOURCE_DATE_EPOCH": "1700000000",
}
"""Of the program, so that two trainings of one spec are equal to the byte."""


def write_pictures(folder: Path, *, character: str = "ava", count: int = 3) -> Path:
    """The first pictures of a sample character, with their captions."""
    drawn = folder.with_name(f".{folder.name}")
    pictures = write_character(character, drawn)[:count]
    folder.mkdir(parents=True)
    for picture in pictures:
        for file in (picture, picture.with_suffix(".txt")):
            shutil.copy(file, folder / file.name)
    shutil.rmtree(drawn)
    return folder


def document(**changes: Any) -> dict[str, Any]:
    """A batch of two datasets and two configs on the embedded model, two steps each."""
    return {
        "defaults": {"modelName": MODEL_ID, "resolution": 128, "epochs": 1, "batchSize": 2},
        "datasets": ["data/datasets/ava", "data/datasets/leo"],
        "configs": [
            {"name": "four", "networkDim": 4, "networkAlpha": 2},
            {"name": "eight", "networkDim": 8, "networkAlpha": 4},
        ],
        **changes,
    }


def place_beside_a_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> BatchPlace:
    """A root in the folder, for the tenant ann of a server whose root is another."""
    for name, value in {**SETTINGS, "INFLUENCERAI_TENANT": ANN}.items():
        monkeypatch.setenv(name, value)
    here = folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return BatchPlace(here)


@contextmanager
def settings_there(folder: Path, databases: Databases) -> Iterator[Settings]:
    """Of that server, whose root is empty."""
    url = databases.new("sqlite")
    root = folder / "there"
    root.mkdir()
    yield Settings(root=root, database_url=url, poll_seconds=0.05, allow_downloads=False, device="cpu")
    databases.give_back(url)


class BatchPlace:
    """A root with the pictures of `document`, and the program in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "batch.yaml"
        for character in ("ava", "leo"):
            write_pictures(root / "data" / "datasets" / character, character=character)
        self.write()

    def write(self, **changes: Any) -> None:
        """The file, as YAML that is JSON."""
        self.file.write_text(json.dumps(document(**changes), indent=1))

    def batch(self, *arguments: str | Path) -> Result:
        """Run the command in this process, which is in the root."""
        return CliRunner().invoke(main, ["batch", str(self.file), *map(str, arguments)])

    def trained(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """The summary of a call where nothing failed."""
        found = self.batch("--json", *arguments)
        assert found.exit_code == 0, found.output
        return list(json_lines(found.stdout)[-1]["trainings"])

    @property
    def runs(self) -> list[str]:
        """The trainer's folders."""
        return sorted(path.name for path in (self.root / ".influencerai" / "runs").glob("*"))

    def files(self) -> dict[str, bytes]:
        """Every LoRA by its path."""
        found = sorted((self.root / "data" / "loras").rglob("*.safetensors"))
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in found}

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The command in a process of its own, which does not outlive the block."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-m", "influencerai", "batch", str(self.file), *arguments],
            cwd=self.root,
            env=os.environ | SETTINGS,
            stdout=pipe,
            stderr=pipe,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def interrupt(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Press Ctrl-C; the exit code and the last line of a command with --json."""
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert printed, errors
    return process.returncode, json_lines(printed)[-1]
