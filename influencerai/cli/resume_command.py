"""The command that continues interrupted work, as it can be pasted into the same shell."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from influencerai.interruption import InterruptedRun

_KEY = "--api-key"
_NAME = "influencerai"


def continuation(interrupted: InterruptedRun, *, arguments: Sequence[str] | None = None) -> tuple[str, str | None]:
    """(message, command) for the user; terminals and logs that show the command get no API key to keep.

    Args:
        interrupted: how the command ended.
        arguments: of the command line; by default those of this process.
    """
    message, given = interrupted.message, list(sys.argv[1:] if arguments is None else arguments)
    if interrupted.continued_by is None:
        return message, None
    if interrupted.continued_by == "--resume":
        end = given.index("--") if "--" in given else len(given)
        if "--resume" not in given[:end]:
            given.insert(end, "--resume")
    shown = _without_key(given)
    if shown != given:
        message = f"{message} The command is shown without its key: set INFLUENCERAI_API_KEY to it."
    return message, shlex.join([*program(), *shown])


def program() -> list[str]:
    """The words by which this program was started; `influencerai` where another program called it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec and spec.name.partition(".")[0] == _NAME:
        python = Path(sys.executable).name
        return [python if shutil.which(python) == sys.executable else sys.executable, "-m", _NAME]
    script = Path(sys.argv[0])
    found = shutil.which(_NAME)
    is_other = script.stem == _NAME and not (found and Path(found).resolve() == script.resolve())
    return [str(script) if is_other else _NAME]


def program_name() -> str:
    """`program` as text for a shell."""
    return shlex.join(program())


def _without_key(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--api-key X` and `--api-key=X`, of which only the first is in two parts."""
    shown: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            return [*shown, argument, *left]
        if argument == _KEY:
            next(left, None)
        elif not argument.startswith(f"{_KEY}="):
            shown.append(argument)
    return shown
