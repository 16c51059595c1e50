"""The base install: every command says what to install, or does without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import json_lines

BLOCKED = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "matplotlib", "numpy")
INSTALL = "pip install 'influencerai[train]'"


@pytest.fixture
def base_install(tmp_path: Path, project: Path) -> Path:
    """A folder whose sitecustomize makes the packages of the train extra unimportable in every interpreter."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {BLOCKED!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    return tmp_path


def run(folder: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), *sys.path))}
    command = [sys.executable, "-m", "influencerai", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=project, env=environment, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "data/faces", "--model", "small"),
        ("train", "data/faces", "--model", "small", "--dry-run"),
        ("sample", "me.safetensors", "--prompt", "ohwx"),
    ],
)
def test_what_trains_or_draws_names_the_extra(base_install: Path, project: Path, arguments: tuple[str, ...]) -> None:
    done = run(base_install, project, *arguments)
    assert done.returncode == 1
    assert INSTALL in done.stderr
    assert "Traceback" not in done.stderr
    done = run(base_install, project, *arguments, "--json")
    document = json_lines(done.stdout)[-1]
    assert (document["type"], document["code"]) == ("error", "dependency_missing")
    assert INSTALL in document["remedy"]


def test_a_dataset_is_checked(base_install: Path, project: Path) -> None:
    done = run(base_install, project, "dataset", "check", "data/faces", "--resolution", "128")
    assert done.returncode == 0, done.stderr
    assert "3 images" in done.stdout


def test_doctor_names_what_is_missing_and_the_command(base_install: Path, project: Path) -> None:
    done = run(base_install, project, "doctor", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["versions"]["torch"] is None
    assert document["devices"] == []
    missing = [problem for problem in document["problems"] if problem["remedy"] == INSTALL]
    assert len(missing) == 1
    assert all(name in missing[0]["message"] for name in BLOCKED)
