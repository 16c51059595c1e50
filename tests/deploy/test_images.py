"""The images: their file, what it is given, and the script that installs, which is run as the images run it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

from influencerai import __version__
from influencerai.serve.gate import OPEN_PATHS
from tests.deploy.manifests import ROOT, addresses, is_known, load, name_of, parse

OF_NVIDIA = {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
OF_PYTHON = {"PYTHONUNBUFFERED"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def having(name: str) -> list[str]:
    return [value for found, value in instructions() if found == name]


def copied() -> list[list[str]]:
    """Sources of each COPY."""
    return [shlex.split(value)[:-1] for value in having("COPY")]


def is_in_context(path: str) -> bool:
    """Whether .dockerignore lets the image's build see a path; the last rule that matches decides."""
    found = True
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = rule.removeprefix("!")
        if rule and not rule.startswith("#") and any(fnmatch(part, pattern) for part in (path, *parents(path))):
            found = rule.startswith("!")
    return found


def parents(path: str) -> list[str]:
    return [str(parent) for parent in Path(path).parents if str(parent) != "."]


def test_what_is_copied_is_there_and_let_in() -> None:
    for source in {item for sources in copied() for item in sources}:
        assert (ROOT / source).exists()
        assert is_in_context(source), source
    for other in (".env", ".git", ".venv", "models", "tests/conftest.py", "deploy/n8n/lora-train.json"):
        assert not is_in_context(other), other


def test_the_programs_of_compose_are_copied() -> None:
    places = {PurePosixPath(having("WORKDIR")[0]) / source for sources in copied() for source in sources}
    [document] = load("compose.yaml")
    scripts = [
        service["command"][1] for service in document["services"].values() if "bash" in service.get("command", ())
    ]
    assert scripts
    assert {PurePosixPath(script) for script in scripts} <= places


def test_the_program_runs_as_nobody_special() -> None:
    assert having("USER") == ["1000:1000"]
    assert "useradd --uid 1000 --user-group --create-home influencerai" in having("RUN")[0]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name == "RUN")


def test_what_runs_and_what_asks_whether_it_does() -> None:
    [command] = having("CMD")
    [entry] = having("ENTRYPOINT")
    [health] = having("HEALTHCHECK")
    assert name_of(parse(json.loads(command))) == "serve"
    assert json.loads(entry) == ["tini", "-s", "--"]  # it is not the first process where those are shared
    url = json.loads(health.partition("CMD ")[2])[-1]
    assert url.removeprefix("http://127.0.0.1:3001") in OPEN_PATHS
    assert having("EXPOSE") == ["3001"]
    for tool in ("tini", "wget"):
        assert re.search(rf"apt-get install .*\b{tool}\b", having("RUN")[0])


def test_the_python_is_the_one_that_the_pins_are_tested_with() -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    assert having("ARG")[0] == f"PYTHON_VERSION={version}"
    assert having("FROM") == ["python:${PYTHON_VERSION}-slim-bookworm"]
    assert f"influencerai:{__version__}-cpu" in (ROOT / "Dockerfile").read_text()


def test_every_variable_is_one_that_somebody_reads() -> None:
    names = {item.partition("=")[0] for value in having("ENV") for item in shlex.split(value)}
    assert {name for name in names if not is_known(name)} == {*OF_NVIDIA, *OF_PYTHON, "PATH"}


def test_no_address_of_somebody_elses_is_written_down() -> None:
    paths = [ROOT / "Dockerfile", ROOT / "compose.yaml", *(ROOT / "deploy").rglob("*.*")]
    assert addresses(path for path in paths if path.is_file()) == []


@pytest.mark.slow
def test_the_script_installs_from_what_the_images_copy(tmp_path: Path) -> None:
    """Once with our version alone, once with everything, as the images do; what it depends on is this environment's."""
    source, folder = tmp_path / "source", tmp_path / "venv"
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the other way round
    }
    scripts = [line for line in having("RUN") if "install.sh" in line]
    assert [line.partition(" sh ")[2] for line in scripts] == ["deploy/install.sh /opt/influencerai all"] * 2
    *first, whole = copied()
    for sources in (first, [whole]):
        for item in itertools.chain.from_iterable(sources):
            copy(ROOT / item, source / item)
        subprocess.run(["sh", str(source / "deploy/install.sh"), str(folder), "all"], env=environment, check=True)
    [installed] = folder.glob("lib/*/site-packages/influencerai")
    said = subprocess.run([folder / "bin/influencerai", "--version"], env=environment, capture_output=True, text=True)
    assert said.stdout.split()[-1] == __version__
    models = "demo/models/influencerai/tiny-avatars"
    assert files_below(installed / models) == files_below(ROOT / "influencerai" / models)


def test_an_interpreter_that_is_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["sh", str(ROOT / "deploy/install.sh"), str(tmp_path / "venv")]
    said = subprocess.run(command, env={**os.environ, "PYTHON": str(old)}, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert str(old) in said.stderr
    assert not (tmp_path / "venv").exists()


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
