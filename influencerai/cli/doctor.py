"""`influencerai doctor`: what is here, and what is missing."""

from __future__ import annotations

import click

from influencerai.cli.common import output_options
from influencerai.cli.outcome import FAILED, print_result
from influencerai.settings import Settings


@click.command(
    short_help="Show versions, devices and settings, and what is missing.",
    epilog="""\b
Examples:
  influencerai doctor
  influencerai doctor --json
\b
Exits with 1 if something that a training needs is missing.""",
)
@output_options
def doctor(*, as_json: bool) -> None:
    """Show versions, devices, settings with their origin, models and folders; then what is missing, with the
    command that repairs it."""
    from influencerai.cli.diagnosis import diagnose

    found = diagnose(Settings.load())
    if as_json:
        print_result(found.to_wire())
    else:
        from influencerai.cli.diagnosis_tables import print_diagnosis

        print_diagnosis(found)
    if found.problems:
        click.get_current_context().exit(FAILED)
