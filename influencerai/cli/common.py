"""Options that commands share, and the console for tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

WIDTH_OF_FILES = 120
"""Columns of a table that does not go to a terminal."""


def output_options(command: F) -> F:
    """`--json`, passed as `as_json`, and `--debug`, which the program itself looks for."""
    command = click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error, and all warnings."
    )(command)
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON lines; the last is the result or the error."
    )(command)


def dataset_argument(command: F) -> F:
    """DATASET; an empty one, as of an unset variable, is not the current folder."""
    return click.argument("dataset", callback=_named)(command)


def _named(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("The name of the folder is empty. Name it; '.' is this one.", context, parameter)
    return value


def database_url_option(command: F) -> F:
    """`--database-url`, a setting."""
    return click.option("--database-url", help="sqlite:///FILE or postgresql://USER@HOST/NAME.")(command)


def standard_output() -> Console:
    """Where tables go; without a terminal, wide enough not to fold most lines."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_OF_FILES)
