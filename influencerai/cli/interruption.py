"""Ctrl-C and SIGTERM: end a training so that it can go on, and say by which command."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from influencerai import interruption
from influencerai.cli.outcome import InterruptedRun
from influencerai.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEY = "--api-key"


class Interruption(interruption.Interruption):
    """An interruption of a command, which ends it with the command that resumes the run."""

    def __init__(self, *, announce: Callable[[], None]) -> None:
        super().__init__(announce=announce, signals=SIGNALS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt | StoppedError) and self.signal is not None:
            raise self._explain(error) from error

    def _explain(self, error: BaseException) -> InterruptedRun:
        assert self.signal is not None
        if self.stage in ("", "checking"):
            text = "Interrupted before the run began; run the same command again."
            return InterruptedRun(text, signal_number=self.signal)
        if isinstance(error, StoppedError):
            text = error.message
        elif self.stage == "training":
            text = "Aborted; the run goes on from its last saved state."
        else:
            text = f"Interrupted while {self.stage}; what was done so far is kept."
        return InterruptedRun(text, signal_number=self.signal, resume_command=resume_command())


def resume_command(arguments: Sequence[str] | None = None) -> str:
    """The command line of this process with --resume, as it can be pasted into the same shell."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    if "--resume" not in given[:end]:
        given.insert(end, "--resume")
    return shlex.join([*_program(), *given])


def same_command(message: str, *, signal_number: int, arguments: Sequence[str] | None = None) -> InterruptedRun:
    """An interruption after which the same command goes on; terminals and logs that show it get no API key to keep."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    shown = _without_key(given)
    if shown != given:
        message = f"{message} The command is shown without its key: set INFLUENCERAI_API_KEY to it."
    command = shlex.join(["influencerai", *shown])
    return InterruptedRun(message, signal_number=signal_number, resume_command=command)


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


def _program() -> list[str]:
    if getattr(sys.modules["__main__"], "__spec__", None):
        return [sys.executable, "-m", "influencerai"]
    name = Path(sys.argv[0]).name
    found = shutil.which(name)
    same = found is not None and Path(found).resolve() == Path(sys.argv[0]).resolve()
    return [name if same else sys.argv[0]]
