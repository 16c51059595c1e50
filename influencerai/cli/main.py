"""The program: `influencerai COMMAND`. A command's module is imported when the command is called."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from influencerai import __version__
from influencerai.cli.hints import hint_for
from influencerai.cli.outcome import DONE, FAILED, escape_unshowable, exit_code_of, report_error, silence_broken_pipe

COMMANDS = {
    "train": "Train a LoRA on a folder of pictures.",
    "batch": "Train many LoRAs from one file.",
    "sample": "Draw a grid of pictures with LoRAs.",
    "models": "List base models, or download one.",
    "lora": "Show what is in a LoRA file.",
    "dataset": "Check a folder of pictures, or write a sample one.",
    "demo": "Serve, train sample characters, draw before and after.",
    "serve": "Serve the REST API and train submitted jobs.",
    "jobs": "List, watch, cancel and retry the jobs of a server.",
    "node": "Make this machine a node of a cluster.",
    "db": "Upgrade or check the database of the server.",
    "keys": "Make, list and revoke API keys.",
    "admin": "See all tenants, their jobs and usage; set quotas.",
    "gc": "Remove what ended jobs and runs left behind.",
    "doctor": "Show what works here, and what is missing.",
}
"""Every command with its help, known without importing it; `influencerai.cli.NAME` defines NAME."""


class Program(click.Group):
    """A group whose commands are imported when called, and where every error ends in words and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"influencerai.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; an unknown command is an error with a hint."""
        word = args[0]
        if word in COMMANDS or word.startswith("-"):
            return super().resolve_command(ctx, args)
        ctx.fail(f"No such command '{word}'. {hint_for(word, commands=COMMANDS)}".rstrip())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the command and leave with its exit code; errors are printed, never raised."""
        escape_unshowable()
        given = list(sys.argv[1:] if args is None else args)
        debug, as_json = "--debug" in given, "--json" in given
        extra["standalone_mode"] = False
        try:
            with _libraries_quiet(unless=debug):
                code = super().main(given, *rest, **extra)
        except SystemExit:
            raise
        except BrokenPipeError:
            silence_broken_pipe()
            code = FAILED
        except BaseException as error:
            report_error(error, as_json=as_json, debug=debug)
            code = exit_code_of(error)
        sys.exit(code if isinstance(code, int) else DONE)


@contextmanager
def _libraries_quiet(*, unless: bool) -> Iterator[None]:
    """Other libraries' warnings are for programmers; what a user should know is an event or an error of ours."""
    with warnings.catch_warnings():
        if not unless:
            warnings.simplefilter("ignore")
            os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        yield


@click.command(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes:
  0    done
  1    failed, or errors were found
  2    the command line, a setting or a config cannot be used
  130  interrupted by Ctrl-C (143: by SIGTERM); continue with `train --resume` or the same `batch`

Relative datasets, LoRAs and output folders are below INFLUENCERAI_ROOT (default: the current directory).""",
)
@click.version_option(__version__, prog_name="influencerai")
def main() -> None:
    """Train LoRA adapters of a character for Stable Diffusion models.

    \b
    Begin with:
      influencerai demo
      influencerai dataset check data/datasets/me --trigger-word ohwx
      influencerai train data/datasets/me --model sd15 --trigger-word ohwx
    """
