"""`influencerai doctor`: what works here, and what is missing."""

from __future__ import annotations

import click

from influencerai.cli.common import output_options
from influencerai.cli.outcome import FAILED, print_result
from influencerai.settings import Settings


@click.command(
    short_help="Show what works here, and what is missing.",
    epilog="""\b
Examples:
  influencerai doctor
  influencerai doctor --all
  influencerai doctor --json
\b
Exits with 1 if something that a training needs is missing.""",
)
@click.option(
    "--all", "show_all", is_flag=True, help="Also load torch, and show versions, settings, models and folders."
)
@output_options
def doctor(*, show_all: bool, as_json: bool) -> None:
    """Show in a few lines what works on this machine and what is missing, with the command that repairs it."""
    from influencerai.doctor import diagnose

    found = diagnose(Settings.load(), load_torch=show_all)
    if as_json:
        print_result(found.to_wire())
    else:
        from influencerai.cli.diagnosis_tables import print_diagnosis, print_summary

        (print_diagnosis if show_all else print_summary)(found)
    if found.problems:
        click.get_current_context().exit(FAILED)
