"""`influencerai gc`: remove what ended jobs and runs left behind."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from influencerai.cli.common import database_url_option, output_options, standard_output
from influencerai.cli.durations import DURATION
from influencerai.cli.job_tables import size_of
from influencerai.cli.outcome import DONE, FAILED, print_result
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.service.cleanup import CleanupReport


@click.command(
    short_help="Remove what ended jobs and runs left behind.",
    epilog="""\b
Examples:
  influencerai gc --older-than 90d --dry-run
  influencerai gc --older-than 90d
  influencerai gc --older-than 1y --tenant studio --artifacts""",
)
@click.option(
    "--older-than",
    type=DURATION,
    metavar="DURATION",
    help="Only what ended, or was last used, so long ago: 90d, 12h, 8w, 1y.  [default: the setting retention_days]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--tenant", help="Only this tenant's; the cache is nobody's and stays.")
@click.option("--artifacts", is_flag=True, help="Remove LoRA files and samples of ended jobs too.")
@click.option("--root", type=click.Path(path_type=Path), help="The server's root, as in `serve`.")
@database_url_option
@output_options
def gc(
    *,
    older_than: timedelta | None,
    dry_run: bool,
    tenant: str | None,
    artifacts: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Remove states and copies of pictures of ended jobs, runs whose job was deleted, unfinished trainings of the
    command line, and cached tensors.

    It may run beside servers and trainings: what a pending or running job, a dataset or a configuration needs stays,
    and LoRA files stay without --artifacts.
    """
    from influencerai.service.cleanup import CleanupRules

    settings = Settings.load(**given)
    if older_than is None:
        if settings.retention_days is None:
            raise click.UsageError("Name --older-than, as in 90d, or set retention_days.")
        older_than = timedelta(days=settings.retention_days)
    rules = CleanupRules(older_than=older_than, tenant=tenant, artifacts=artifacts, dry_run=dry_run)
    report = asyncio.run(_run(settings, rules))
    if as_json:
        print_result(_document(report, dry_run=dry_run))
    else:
        _print(report, dry_run=dry_run)
    return FAILED if report.problems else DONE


async def _run(settings: Settings, rules: Any) -> CleanupReport:
    from influencerai.service import Service

    service = Service(settings)
    try:
        await service.store.database.check(make=False)
        return await service.cleanup.run(rules)
    finally:
        await service.store.database.close()


def _print(report: CleanupReport, *, dry_run: bool) -> None:
    from rich.table import Table

    console = standard_output()
    if report.removed:
        table = Table("what", "tenant", "count", "size", box=None, pad_edge=False)
        for (kind, tenant), (count, size) in sorted(report.removed.items()):
            table.add_row(kind, tenant, str(count), size_of(size))
        console.print(table)
        console.print()
    verb = "Would remove" if dry_run else "Removed"
    console.print(f"{verb} {size_of(report.total_bytes)}.")
    for problem in report.problems:
        click.echo(problem, err=True)


def _document(report: CleanupReport, *, dry_run: bool) -> dict[str, Any]:
    items = [
        {"kind": kind, "tenant": None if tenant == "-" else tenant, "count": count, "bytes": size}
        for (kind, tenant), (count, size) in sorted(report.removed.items())
    ]
    return {"dryRun": dry_run, "removed": items, "bytes": report.total_bytes, "problems": report.problems}
