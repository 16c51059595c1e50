"""The wheel holds everything that the package needs at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel_names: set[str]) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "influencerai").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "influencerai/py.typed" in files
    assert files <= wheel_names


def test_the_wheel_holds_nothing_else_but_its_metadata(wheel_names: set[str]) -> None:
    others = {name for name in wheel_names if not name.startswith("influencerai/")}
    assert {name.partition("/")[0].partition("-")[0] for name in others} == {"influencerai"}
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in others}
