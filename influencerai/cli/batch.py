"""`influencerai batch`: many trainings from one file, here or on a server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from influencerai.cli.common import output_options, standard_output
from influencerai.cli.outcome import print_result
from influencerai.errors import InfluencerAIError
from influencerai.interruption import InterruptedRun
from influencerai.progress.text import visible
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.batch.check import Checked
    from influencerai.batch.listener import BatchListener
    from influencerai.batch.rows import BatchRow
    from influencerai.batch.trainings import Training


class Place(Protocol):
    """Where trainings are done."""

    def check(self, trainings: Sequence[Training]) -> list[Checked]: ...

    def train(self, checked: Sequence[Checked], rows: Sequence[BatchRow], listener: BatchListener) -> None: ...


@click.command(
    short_help="Train many LoRAs from one file.",
    epilog="""\b
Examples:
  influencerai batch trainings.yaml --dry-run
  influencerai batch trainings.csv --report results.csv
  influencerai batch trainings.yaml --server http://127.0.0.1:3001 --tenant me --upload
\b
The same command continues an interrupted batch; completed trainings are not repeated.""",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check every training, show totals, and train nothing.")
@click.option("--retry-failed", is_flag=True, help="Also retry trainings that failed in an earlier call.")
@click.option("--fail-fast", is_flag=True, help="Start no other training after one has failed.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the summary to this file, .csv or .json.")
@click.option("--backend", default="diffusers", show_default=True, help="What trains here; or: dry-run.")
@click.option("--server", help="Train on the server at this address instead of here.")
@click.option(
    "--tenant", envvar="INFLUENCERAI_TENANT", show_envvar=True, help="On a server: tenant whose jobs they are."
)
@click.option("--api-key", envvar="INFLUENCERAI_API_KEY", show_envvar=True, help="Key of the tenant, in production.")
@click.option("--upload", is_flag=True, help="On a server: upload the folders of pictures of this machine.")
@click.option(
    "--at-once", type=click.IntRange(1), default=4, show_default=True, help="On a server: most jobs active at a time."
)
@output_options
def batch(
    *,
    file: Path,
    dry_run: bool,
    retry_failed: bool,
    fail_fast: bool,
    report: Path | None,
    backend: str,
    server: str | None,
    tenant: str | None,
    api_key: str | None,
    upload: bool,
    at_once: int,
    as_json: bool,
) -> None:
    """Train every LoRA that FILE asks for: datasets x configs as YAML, or one training per row as CSV.

    Everything is checked before anything starts.
    """
    from influencerai.batch.document import read_batch
    from influencerai.batch.report import REPORTS, check_report
    from influencerai.batch.state import BatchState
    from influencerai.cli.batch_plan import refuse_problems, show_plan, show_warnings

    if report and report.suffix.lower() not in REPORTS:
        raise click.UsageError(f"--report {report} should end in {' or '.join(REPORTS)}.")
    if upload and not server:
        raise click.UsageError("--upload goes with --server.")
    settings = Settings.load()
    found = read_batch(file)
    if report and not dry_run:
        check_report(report)
    state = BatchState(settings.root / ".influencerai" / "batches", file, server=server)
    place: Place
    if server:
        if not tenant and not api_key:
            raise click.UsageError("Name the tenant: by --tenant, or by --api-key on a server in production.")
        from influencerai.batch.remote import BatchServer
        from influencerai.batch.remote_jobs import ServerBatch

        of_tenant = BatchServer(
            server,
            tenant=tenant,
            api_key=api_key,
            state=state,
            root=settings.root,
            upload=upload,
            dry_run=dry_run,
            is_sound=not found.problems,
            say=lambda text: click.echo(visible(text), err=True),
        )
        place = ServerBatch(of_tenant, at_once=at_once, fail_fast=fail_fast)
    else:
        from influencerai.batch.local import LocalBatch

        place = LocalBatch(settings=settings, backend=backend, state=state, fail_fast=fail_fast)
    with nullcontext() if dry_run and not server else state.lock():
        checked = place.check(found.trainings)
        refuse_problems(file, found, checked, as_json=as_json)
        show_warnings((*settings.warnings, *found.warnings), checked, as_json=as_json)
        if dry_run:
            show_plan(checked, as_json=as_json)
        else:
            _train(place, checked, retry_failed=retry_failed, report=report, as_json=as_json)


def _train(place: Place, checked: Sequence[Checked], *, retry_failed: bool, report: Path | None, as_json: bool) -> None:
    """Train, and report how each training ended, also where a signal ended the batch.

    Raises:
        InterruptedRun: a signal ended the batch.
        TrainingError: a training failed.
        InfluencerAIError: every training completed, but the report cannot be written.
    """
    from influencerai.batch.report import failure_of, result_of, write_report
    from influencerai.cli.batch_plan import show_warnings
    from influencerai.cli.batch_progress import choose_batch_listener
    from influencerai.cli.batch_tables import summary_table

    rows = [_row(item, retry_failed=retry_failed) for item in checked]
    ending: BaseException | None = None
    try:
        with choose_batch_listener(rows, as_json=as_json) as listener:
            for row in rows:
                if row.has_ended:
                    listener(row)
            place.train(checked, rows, listener)
    except InterruptedRun as stop:
        stop.continued_by = "repetition"
        ending = stop
    except BaseException as error:  # raised below, after the summary
        ending = error
    if not as_json:
        standard_output().print(summary_table(rows))
    ending = ending or failure_of(rows)
    if report:
        try:
            write_report(report, rows)
        except InfluencerAIError as error:
            if ending is None:
                error.failure = result_of(rows)
                raise
            show_warnings([str(error)], [], as_json=as_json)
            raise ending from error
    if ending is not None:
        raise ending
    if as_json:
        print_result(result_of(rows))


def _row(item: Checked, *, retry_failed: bool) -> BatchRow:
    from influencerai.batch.rows import BatchRow

    row = BatchRow(name=item.training.name, dataset=item.training.dataset)
    if item.standing == "failed" and retry_failed:
        return row
    row.job_id = item.job_id
    if item.standing == "completed":
        row.complete(item.result, earlier=True)
    elif item.standing == "failed":
        row.fail(item.error or "It failed.", earlier=True)
    return row
