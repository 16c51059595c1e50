"""Terminals and pipes that cannot show a character never change what a command does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("as_json", [False, True])
def test_an_output_that_cannot_show_a_name_escapes_it(project: Path, encoding: str, as_json: bool) -> None:
    folder = project / "data" / "夏目🙂"
    folder.mkdir(exist_ok=True)
    (folder / "夏目🙂.png").write_bytes(b"")
    command = [sys.executable, "-m", "influencerai", "dataset", "check", str(folder), *(["--json"] if as_json else [])]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = subprocess.run(command, env=environment, cwd=project, capture_output=True, check=False)
    shown = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 1
    assert "bug in InfluencerAI" not in shown
    if as_json:
        message = json.loads(done.stdout.decode(encoding).splitlines()[-1])
        assert "夏目🙂" in json.dumps(message, ensure_ascii=False)
    else:
        expected = "夏目🙂" if encoding == "utf-8" else "\\u590f"
        assert expected in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_output_that_takes_no_more_is_no_mistake_of_the_program(project: Path) -> None:
    command = [sys.executable, "-m", "influencerai", "dataset", "check", str(project / "data/faces")]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, cwd=project, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device where the output goes" in done.stderr
    assert "bug in InfluencerAI" not in done.stderr
