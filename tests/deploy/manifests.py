"""What compose.yaml and the manifests for Kubernetes have in common: programs, environments and versions to check."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import yaml

from influencerai.cli.main import main
from influencerai.settings import CLIENT_VARIABLES, ENV_PREFIX, FILE_VARIABLE, Settings

ROOT = Path(__file__).parents[2]
_SETTINGS = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields} | {FILE_VARIABLE, *CLIENT_VARIABLES}
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_OWN_ADDRESS = re.compile(r"https?://(127\.0\.0\.1|localhost|\$host|influencerai;|[\w-]+:\d+)")
"""Of this machine, of a service, or of the proxy's own host and upstream."""


@cache
def load(path: str) -> tuple[Any, ...]:
    """The documents of a YAML file of the repository, read once: who changes one takes a copy."""
    return tuple(yaml.safe_load_all((ROOT / path).read_text("utf-8")))


def parse(arguments: Sequence[str]) -> click.Context:
    """The context in which a command line of ours would run.

    Raises:
        click.UsageError: it would be refused.
    """
    program, *rest = arguments
    assert program == "influencerai", arguments
    command: click.Command = main
    context = command.make_context(program, list(rest))
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)
    return context


def name_of(context: click.Context) -> str:
    """The command's name, as in "node start"."""
    return context.command_path.partition(" ")[2]


def is_known(variable: str) -> bool:
    """Whether it is a setting of ours, or something that Ray reads."""
    return variable in _SETTINGS if variable.startswith(ENV_PREFIX) else _is_of_ray(variable)


@cache
def _is_of_ray(variable: str) -> bool:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    folders = (package / "_private", package / "serve" / "_private")
    places = [*(path for folder in folders for path in folder.rglob("*.py")), package / "_raylet.so"]
    return variable.startswith("RAY_") and any(_holds(path, variable.encode()) for path in places)


def _holds(path: Path, text: bytes) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def pinned(package: str) -> str:
    """The version of a package in constraints.txt."""
    found = re.search(rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def seconds(duration: str) -> int:
    """A duration as compose writes it: `90s`, `2m`."""
    parts = re.findall(r"(\d+)([smh])", duration)
    assert "".join(number + unit for number, unit in parts) == duration
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def addresses(paths: Iterable[Path]) -> list[str]:
    """Web addresses in files that are not of one's own cluster or machine."""
    found = re.findall(r"https?://[^\s\"'`)]+", "".join(path.read_text("utf-8") for path in paths))
    return [address for address in found if not _OWN_ADDRESS.match(address)]
