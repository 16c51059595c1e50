"""How a command ends: its exit code, and its error as text or JSON."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import click

from influencerai.cli.resume_command import continuation
from influencerai.errors import DependencyMissingError, InfluencerAIError, ValidationError
from influencerai.interruption import InterruptedRun
from influencerai.progress.text import visible

DONE = 0
FAILED = 1
UNUSABLE = 2
_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EFBIG, errno.EIO}
)
"""Reasons of a file system to refuse a write, which are no bugs of the program."""


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error ends the program with."""
    if isinstance(error, InterruptedRun):
        return 128 + error.signal_number
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 128 + signal.SIGINT
    if isinstance(error, ValidationError | click.UsageError):
        return UNUSABLE
    return FAILED


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on one line of standard output; in ASCII where that cannot show every character."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    click.echo(json.dumps(document, ensure_ascii=not encoding.startswith("utf")))


def print_result(document: Mapping[str, Any]) -> None:
    """The last line of a command with `--json`."""
    print_json({"type": "result", **document})


def report_error(error: BaseException, *, as_json: bool, debug: bool) -> None:
    """Print what is wrong, where, and what to do; the traceback only on request."""
    known = _as_known(error)
    if as_json:
        print_json(_document(known))
    if debug:
        click.echo(visible("".join(traceback.format_exception(error))), err=True)
    if not as_json:
        _print_error(known)


def escape_unshowable() -> None:
    """Let standard output and error write characters that their encoding lacks as escapes, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_broken_pipe() -> None:
    """Let the interpreter end quietly after the reader of our output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _as_known(error: BaseException) -> BaseException:
    """Imports that fail and writes that a file system refuses, as errors of this package."""
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        where = f": {error.filename}" if error.filename else " where the output goes"
        return InfluencerAIError(f"{error.strerror}{where}.", remedy="Free space there, or choose another place.")
    if isinstance(error, ImportError) and not (error.name or "influencerai").startswith("influencerai"):
        missing = isinstance(error, ModuleNotFoundError)
        problem = "is not installed" if missing else f"cannot be loaded ({error.msg})"
        return DependencyMissingError(
            f"This command needs the package '{error.name}', which {problem}.",
            remedy="Run: pip install 'influencerai[train]'.",
        )
    return error


def _document(error: BaseException) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "error", "exitCode": exit_code_of(error)}
    if isinstance(error, InfluencerAIError):
        document |= {"code": error.code, "message": error.message, "remedy": error.remedy}
        if isinstance(error, ValidationError):
            document["fieldErrors"] = error.field_errors
        if notes := getattr(error, "__notes__", []):
            document["notes"] = list(notes)
        if error.failure:
            document["result"] = error.failure
    elif isinstance(error, InterruptedRun):
        message, command = continuation(error)
        document |= {"code": "stopped", "message": message, "resumeCommand": command}
    elif isinstance(error, KeyboardInterrupt | click.Abort):
        document |= {"code": "stopped", "message": "Interrupted.", "resumeCommand": None}
    elif isinstance(error, click.ClickException):
        code = "usage" if isinstance(error, click.UsageError) else "error"
        document |= {"code": code, "message": error.format_message()}
    else:
        document |= {"code": "unexpected", "message": _unexpected(error)}
    return document


def _print_error(error: BaseException) -> None:
    if isinstance(error, InterruptedRun):
        message, command = continuation(error)
        click.echo(visible(message), err=True)
        if command:
            click.echo(visible(f"Continue with:\n  {command}"), err=True)
    elif isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo("Interrupted.", err=True)
    elif isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        click.echo(visible(shown.getvalue()), err=True, nl=False)
    elif isinstance(error, InfluencerAIError):
        generic = isinstance(error, ValidationError) and error.message == ValidationError().message
        first = "These values cannot be used:" if generic else error.message
        _print_lines(first, *_details(error), error.remedy, *getattr(error, "__notes__", []))
    else:
        _print_lines(
            _unexpected(error),
            "This is a bug in InfluencerAI. Please report it with what the same command prints with --debug, "
            "and with the output of `influencerai doctor --all`.",
        )


def _details(error: InfluencerAIError) -> list[str]:
    lines = []
    if isinstance(error, ValidationError):
        from influencerai.cli.config_options import option_of

        for name, texts in error.field_errors.items():
            shown = f"{name} ({option})" if (option := option_of(name)) else name
            lines += [f"  {shown}: {text}" for text in texts]
    if error.failure and error.failure.get("partialCheckpoints"):
        kept = ", ".join(error.failure["partialCheckpoints"])
        lines.append(f"It was in epoch {error.failure['epoch']}. These files were kept: {kept}.")
    return lines


def _print_lines(first: str, *rest: str | None) -> None:
    click.echo(click.style("Error: ", fg="red", bold=True) + visible(first), err=True)
    for line in rest:
        if line:
            click.echo(visible(line), err=True)


def _unexpected(error: BaseException) -> str:
    return f"Unexpected {type(error).__name__}: {error}"
