"""deploy/systemd: units that systemd takes, with command lines that the program takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT, is_known, name_of, parse

FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
PROGRAM = "/opt/influencerai/bin/influencerai"
DRAIN_SECONDS = 120


def read(name: str) -> dict[str, list[str]]:
    """The directives of a unit."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (FOLDER / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def environment() -> dict[str, str]:
    lines = (FOLDER / "influencerai.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_units_are_those_of_a_server_a_node_and_a_migration() -> None:
    assert UNITS == ["influencerai-migrate.service", "influencerai-node.service", "influencerai-serve.service"]


@pytest.mark.parametrize("name", UNITS)
def test_command_lines_can_be_parsed(name: str) -> None:
    [line] = read(name)["ExecStart"]
    program, *arguments = line.replace("$NODE_ARGUMENTS", environment()["NODE_ARGUMENTS"]).split()
    assert program == PROGRAM
    context = parse(["influencerai", *arguments])
    assert name_of(context) in ("serve", "node start", "db upgrade")
    if name_of(context) == "node start":
        assert context.params["drain_seconds"] == DRAIN_SECONDS


def test_the_environment_holds_what_the_programs_read() -> None:
    assert [name for name in environment() if name != "NODE_ARGUMENTS" and not is_known(name)] == []


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_no_more_than_it_needs(name: str) -> None:
    unit = read(name)
    assert unit["User"] == ["influencerai"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["UMask"] == ["0077"]
    if name != "influencerai-migrate.service":
        assert int(unit["LimitNOFILE"][0]) >= 65536
        assert int(unit["TimeoutStopSec"][0]) > DRAIN_SECONDS + 30  # --drain-seconds, and what follows
        assert unit["KillMode"] == ["mixed"]
        assert not unit["PrivateDevices"]
        assert not unit["PrivateTmp"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("influencerai")
    for name in UNITS:
        (tmp_path / name).write_text((FOLDER / name).read_text().replace(PROGRAM, str(program)))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in (found.stdout + found.stderr).splitlines() if "influencerai" in line]
    assert ours == []
