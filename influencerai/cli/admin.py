"""`influencerai admin`: all tenants, their jobs, usage and quotas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from influencerai.cli.common import database_url_option, output_options, standard_output
from influencerai.cli.job_tables import age, progress_of, size_of, status_of
from influencerai.cli.outcome import print_result
from influencerai.domain.usage import AdminJobQuery, QuotaChange, QuotaUse, Usage
from influencerai.progress.text import visible
from influencerai.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from influencerai.service import Service

Result = TypeVar("Result")
F = TypeVar("F", bound=Callable[..., Any])
_refresh_option = click.option("--refresh", is_flag=True, help="Measure the disk now.")
_QUOTA_OPTIONS = {
    "datasets": ("--datasets", "Registered datasets."),
    "configs": ("--configs", "Configurations."),
    "stored_gib": ("--stored-gib", "GiB of files."),
    "active_jobs": ("--jobs", "Pending and running jobs."),
    "jobs_per_day": ("--jobs-per-day", "Jobs submitted in a day (UTC)."),
    "upload_mib": ("--upload-mib", "MiB of one upload."),
    "gpu_hours_per_month": ("--gpu-hours", "Hours of devices in a month (UTC)."),
}


class _Limit(click.ParamType[Any]):
    """A number, `none` for no limit, or `default` for the setting's."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("none", "default"):
            return value
        try:
            number = float(value)
        except ValueError:
            self.fail(f"'{value}' is neither a number nor 'none' nor 'default'.", param, ctx)
        if not 0 <= number <= 10**12:
            self.fail(f"{value} is not between 0 and 10^12.", param, ctx)
        return number


def _server_options(command: F) -> F:
    root = click.option("--root", type=click.Path(path_type=Path), help="The server's root, as in `serve`.")
    return database_url_option(root(command))


def _quota_options(command: F) -> F:
    for name, (flag, text) in reversed(_QUOTA_OPTIONS.items()):
        command = click.option(flag, name, type=_Limit(), metavar="LIMIT", help=text)(command)
    return command


@click.group(short_help="See all tenants, their jobs and usage; set quotas.")
def admin() -> None:
    """All tenants of a server, read from its database: for operators.

    The same over REST is /admin, with a key from `influencerai keys create --admin`.
    """


@admin.command(
    short_help="List tenants with jobs, device time and bytes.",
    epilog="""\b
Example:
  influencerai admin tenants --refresh""",
)
@_refresh_option
@_server_options
@output_options
def tenants(*, refresh: bool, as_json: bool, **given: Any) -> None:
    """List every tenant: active and ended jobs, device hours of this month, bytes, and quotas that are nearly used."""
    found = _run(lambda service: service.usage.of_all(refresh=refresh), given)
    if as_json:
        print_result(found.to_wire())
        return
    table = _table("tenant", "pending", "running", "completed", "failed", "hours", "disk", "quotas of 80% and more")
    for usage in found.data:
        jobs = usage.jobs
        numbers = (jobs["pending"], jobs["running"], jobs["completed"], jobs["failed"] + jobs["cancelled"])
        hours = f"{usage.device_seconds_this_month / 3600:.1f}"
        near = ", ".join(_use_text(quota) for quota in usage.quotas if _is_near(quota))
        _add_row(table, usage.tenant_id, *map(str, numbers), hours, _disk_text(usage), near or "-")
    standard_output().print(table)


@admin.command(
    short_help="List jobs of all tenants.",
    epilog="""\b
Examples:
  influencerai admin jobs --status running
  influencerai admin jobs --tenant studio --take 100""",
)
@click.option("--tenant", help="Only jobs of this tenant.")
@click.option(
    "--status",
    type=click.Choice(["pending", "running", "completed", "failed", "cancelled"]),
    help="Only jobs in this state.",
)
@click.option("--take", type=click.IntRange(1, 100), default=20, show_default=True, help="Jobs to list, newest first.")
@_server_options
@output_options
def jobs(*, tenant: str | None, status: Any, take: int, as_json: bool, **given: Any) -> None:
    """List jobs of all tenants, newest first."""
    query = AdminJobQuery(tenant=tenant, status=status, take=take)
    page = _run(lambda service: service.usage.jobs(query), given)
    if as_json:
        print_result({"total": page.total, "jobs": [job.to_wire() for job in page.items]})
        return
    table = _table("id", "tenant", "status", "progress", "age", "error")
    table.columns[0].no_wrap, table.columns[0].min_width = True, 36
    for job in page.items:
        error = str((job.result or {}).get("error") or "")
        _add_row(table, job.id, job.tenant_id, status_of(job), progress_of(job), age(job.created_at), error[:60])
    console = standard_output()
    console.print(table)
    if page.total > len(page.items):
        console.print(f"{page.total - len(page.items)} more: --take {min(100, page.total)}, or narrow by --tenant.")


@admin.command(
    short_help="Show what one tenant, or each, uses.",
    epilog="""\b
Examples:
  influencerai admin usage --refresh
  influencerai admin usage studio""",
)
@click.argument("tenant", required=False)
@_refresh_option
@_server_options
@output_options
def usage(*, tenant: str | None, refresh: bool, as_json: bool, **given: Any) -> None:
    """Show jobs, device seconds and bytes of the disk of TENANT, or the disk of every tenant."""
    if tenant is not None:
        found = _run(lambda service: service.usage.of(tenant, max_age=0 if refresh else None), given)
        _print_usage(found, as_json=as_json)
        return
    every = _run(lambda service: service.usage.of_all(refresh=refresh), given)
    if as_json:
        print_result(every.to_wire())
        return
    table = _table("tenant", "device seconds", "datasets", "runs", "LoRAs", "other", "total", "measured")
    for one in every.data:
        disk = one.disk
        sizes = () if disk is None else (disk.datasets, disk.runs, disk.loras, disk.other, disk.total)
        texts = [size_of(size) for size in sizes] or ["?"] * 5
        measured = "never: use --refresh" if disk is None else f"{age(disk.measured_at)} ago"
        _add_row(table, one.tenant_id, f"{one.device_seconds:g}", *texts, measured)
    console = standard_output()
    console.print(table)
    console.print(f"The cache, which all share: {size_of(every.cache_bytes)}")


@admin.group(short_help="Show and set the quotas of a tenant.")
def quota() -> None:
    """Quotas: limits of one tenant that win over the settings."""


@quota.command(
    "set",
    short_help="Set quotas of a tenant.",
    epilog="""\b
Examples:
  influencerai admin quota set studio --jobs 10 --stored-gib 200
  influencerai admin quota set studio --gpu-hours none --jobs default""",
)
@click.argument("tenant")
@_quota_options
@_server_options
@output_options
def set_(*, tenant: str, as_json: bool, database_url: str | None, root: Path | None, **limits: Any) -> None:
    """Set quotas of TENANT: a number, `none` for no limit, or `default` for the setting's. Others stay as they are."""
    named = {name: None if limit == "none" else limit for name, limit in limits.items() if limit is not None}
    if not named:
        raise click.UsageError(f"Name a quota: {', '.join(flag for flag, _ in _QUOTA_OPTIONS.values())}.")
    change = QuotaChange(**named)

    async def set_and_show(service: Service) -> Usage:
        await service.quotas.change(tenant, change.changes())
        return await service.usage.of(tenant)

    _print_usage(_run(set_and_show, {"database_url": database_url, "root": root}), as_json=as_json)


@quota.command(
    "show",
    short_help="Show the quotas of a tenant.",
    epilog="""\b
Example:
  influencerai admin quota show studio""",
)
@click.argument("tenant")
@_server_options
@output_options
def show(*, tenant: str, as_json: bool, **given: Any) -> None:
    """Show each quota of TENANT, what is used of it, and whether the limit is a setting or the tenant's own quota."""
    _print_usage(_run(lambda service: service.usage.of(tenant), given), as_json=as_json)


def _run(action: Callable[[Service], Awaitable[Result]], given: Mapping[str, Any]) -> Result:
    from influencerai.service import Service

    service = Service(Settings.load(**given))

    async def run() -> Result:
        try:
            await service.store.database.check(make=False)
            return await action(service)
        finally:
            await service.close()

    return asyncio.run(run())


def _print_usage(found: Usage, *, as_json: bool) -> None:
    if as_json:
        print_result(found.to_wire())
        return
    console = standard_output()
    counts = ", ".join(f"{count} {status}" for status, count in found.jobs.items())
    month = found.device_seconds_this_month
    console.print(f"Tenant {visible(found.tenant_id)}", markup=False)
    console.print(f"  jobs     {counts}")
    console.print(f"  devices  {found.device_seconds:g} s, {month:g} s of them this month")
    if (disk := found.disk) is not None:
        parts = {"datasets": disk.datasets, "runs": disk.runs, "LoRAs": disk.loras, "other": disk.other}
        text = ", ".join(f"{name} {size_of(size)}" for name, size in parts.items())
        console.print(f"  disk     {size_of(disk.total)} ({text}), measured {age(disk.measured_at)} ago")
    else:
        console.print("  disk     not measured yet: use `admin usage --refresh`")
    console.print()
    table = _table("quota", "used", "limit", "from")
    for one in found.quotas:
        used = "-" if one.used is None else f"{one.used:g}"
        origin = "the tenant's" if one.source == "tenant" else "settings"
        _add_row(table, one.name, used, "none" if one.limit is None else f"{one.limit:g}", origin)
    console.print(table)


def _table(*titles: str) -> Table:
    from rich.table import Table

    return Table(*titles, box=None, pad_edge=False)


def _add_row(table: Table, *cells: str) -> None:
    from rich.markup import escape

    table.add_row(*(escape(visible(cell)) for cell in cells))


def _disk_text(usage: Usage) -> str:
    return "?" if usage.disk is None else size_of(usage.disk.total)


def _is_near(quota: QuotaUse) -> bool:
    return quota.limit is not None and quota.used is not None and quota.used >= 0.8 * quota.limit


def _use_text(quota: QuotaUse) -> str:
    return f"{quota.name} {quota.used:g}/{quota.limit:g}"
