"""`influencerai jobs`: the jobs of a server, over HTTP."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from influencerai.cli.common import output_options, standard_output
from influencerai.cli.outcome import print_json, print_result
from influencerai.errors import ValidationError
from influencerai.interruption import InterruptedRun
from influencerai.progress.text import visible

if TYPE_CHECKING:
    from influencerai.client import InfluencerAIClient

F = TypeVar("F", bound=Callable[..., Any])
Status = Literal["pending", "running", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("pending", "running", "completed", "failed", "cancelled")
DEFAULT_SERVER = "http://127.0.0.1:3001"
SECONDS_BETWEEN_LOOKS = 2.0


@click.group(short_help="List, watch, cancel and retry the jobs of a server.")
def jobs() -> None:
    """The jobs of a server, over HTTP: it may be on another machine."""


def server_options(command: F) -> F:
    """Which server, and whose jobs; passed as `server`, `tenant` and `api_key`."""
    for option in (
        click.option(
            "--api-key",
            envvar="INFLUENCERAI_API_KEY",
            show_envvar=True,
            help="Key of the tenant, for a server in production.",
        ),
        click.option("--tenant", envvar="INFLUENCERAI_TENANT", show_envvar=True, help="Tenant whose jobs they are."),
        click.option(
            "--server",
            envvar="INFLUENCERAI_SERVER",
            show_envvar=True,
            default=DEFAULT_SERVER,
            show_default=True,
            help="Address of the server.",
        ),
    ):
        command = option(command)
    return command


@jobs.command(
    "list",
    short_help="List jobs, the newest first.",
    epilog="""\b
Examples:
  influencerai jobs list --tenant me
  influencerai jobs list --tenant me --status failed --limit 5
  influencerai jobs list --tenant me --metadata orderId:A-17""",
)
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs of this status.")
@click.option("--metadata", "pairs", metavar="KEY:VALUE", multiple=True, help="Only jobs that have this metadata.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most jobs to list.")
@server_options
@output_options
def list_(*, status: Status | None, pairs: tuple[str, ...], limit: int, as_json: bool, **given: Any) -> None:
    """List jobs with their progress or stage, and why they wait."""
    from influencerai.cli.job_tables import job_table

    with _client(given) as client:
        metadata = dict(_pair(text) for text in pairs)
        listing = client.jobs.list(status=status, metadata=metadata, page_size=min(limit, 100))
        found = list(islice(listing, limit))
        if as_json:
            print_result({"jobs": [job.to_wire() for job in found], "total": listing.total})
        elif not found:
            click.echo("There are no jobs.", err=True)
        else:
            standard_output().print(job_table(found))
            if len(found) == limit and (total := listing.total) > limit:
                click.echo(f"{limit} of {total}; --limit shows more.", err=True)


@jobs.command(
    short_help="Show everything that is known of a job.",
    epilog="""\b
Example:
  influencerai jobs show 01a206ae-4e40-7536-9936-a9df81e09aa6 --tenant me""",
)
@click.argument("id")
@server_options
@output_options
def show(*, id: str, as_json: bool, **given: Any) -> None:
    """Show the job ID: what it trains, each attempt at it, its files, its result or error."""
    from influencerai.cli.job_tables import print_job

    with _client(given) as client:
        job, artifacts = client.jobs.get(id), client.jobs.artifacts(id)
    if as_json:
        print_result({"job": job.to_wire(), "artifacts": [file.to_wire() for file in artifacts]})
    else:
        print_job(standard_output(), job, artifacts)


@jobs.command(
    short_help="Watch the active jobs, or one until it ends.",
    epilog="""\b
Examples:
  influencerai jobs watch --tenant me
  influencerai jobs watch 01a206ae-4e40-7536-9936-a9df81e09aa6 --tenant me

Ctrl-C stops watching; the jobs keep running.""",
)
@click.argument("id", required=False)
@server_options
@output_options
def watch(*, id: str | None, as_json: bool, **given: Any) -> None:
    """Watch the active jobs until none is left, or the job ID until it ends; exit code 1 if one failed."""
    from influencerai.cli.job_watch import watch_active, watch_one

    with _client(given) as client, _leaving_alone(id):
        if id is None:
            watch_active(client, as_json=as_json, pause=SECONDS_BETWEEN_LOOKS)
        else:
            watch_one(client, id, as_json=as_json)


@jobs.command(
    short_help="End a job.",
    epilog="""\b
Example:
  influencerai jobs cancel 01a206ae-4e40-7536-9936-a9df81e09aa6 --tenant me""",
)
@click.argument("id")
@server_options
@output_options
def cancel(*, id: str, as_json: bool, **given: Any) -> None:
    """End the job ID; a running one ends at its next step, and `retry` continues from there."""
    with _client(given) as client:
        job = client.jobs.cancel(id)
    if as_json:
        print_result({"job": job.to_wire()})
    elif job.status == "failed":
        click.echo(f"Job {job.id} is cancelled.")
    else:
        click.echo(f"Job {job.id} ends at its next step.")


@jobs.command(
    short_help="Try a failed or cancelled job again.",
    epilog="""\b
Example:
  influencerai jobs retry 01a206ae-4e40-7536-9936-a9df81e09aa6 --tenant me""",
)
@click.argument("id")
@server_options
@output_options
def retry(*, id: str, as_json: bool, **given: Any) -> None:
    """Make a new job that continues from the last training state of the job ID."""
    with _client(given) as client:
        job = client.jobs.retry(id)
    if as_json:
        print_result({"job": job.to_wire()})
    else:
        click.echo(job.id)


@jobs.command(
    short_help="Show what has happened to a job.",
    epilog="""\b
Examples:
  influencerai jobs logs 01a206ae-4e40-7536-9936-a9df81e09aa6 --tenant me
  influencerai jobs logs 01a206ae-4e40-7536-9936-a9df81e09aa6 --tenant me --follow""",
)
@click.argument("id")
@click.option("--follow", is_flag=True, help="Keep printing until the job has ended.")
@server_options
@output_options
def logs(*, id: str, follow: bool, as_json: bool, **given: Any) -> None:
    """Show the events of the job ID, one on each line."""
    from influencerai.cli.job_tables import event_line

    with _client(given) as client, _leaving_alone(id):
        last = 0
        for event in client.jobs.follow(id) if follow else client.jobs.events(id):
            last = event.seq
            if as_json:
                print_json(event.to_wire())
            else:
                click.echo(event_line(event))
    if as_json:
        print_result({"lastSeq": last})


@contextmanager
def _client(given: dict[str, Any]) -> Iterator[InfluencerAIClient]:
    """A client of the server that the options name; its warnings go to standard error."""
    from influencerai.client import InfluencerAIClient

    if not given["tenant"] and not given["api_key"]:
        raise click.UsageError("Name the tenant: by --tenant, or by --api-key on a server in production.")
    with InfluencerAIClient(
        given["server"],
        tenant_id=given["tenant"],
        api_key=given["api_key"],
        retries=2,
        on_warning=lambda text: click.echo(visible(f"Warning: {text}"), err=True),
    ) as client:
        yield client


@contextmanager
def _leaving_alone(id: str | None) -> Iterator[None]:
    """Ctrl-C ends the command; the message states that the jobs keep running."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        text = "The jobs keep running." if id is None else f"Job {id} keeps running."
        raise InterruptedRun(text, signal_number=signal.SIGINT, continued_by="repetition") from interrupt


def _pair(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not key or not colon:
        raise ValidationError(f"--metadata {text} is not of the form KEY:VALUE.")
    return key, value
