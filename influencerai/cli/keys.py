"""`influencerai keys`: API keys for the server in production."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from influencerai.cli.common import database_url_option, output_options, standard_output
from influencerai.cli.durations import DURATION
from influencerai.cli.job_tables import age, moment
from influencerai.cli.outcome import print_result
from influencerai.progress.text import visible
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.service.keys import KeyService
    from influencerai.store.api_keys import ApiKey, KeyScope

Result = TypeVar("Result")
_root_option = click.option("--root", type=click.Path(path_type=Path), help="The server's root, as in `serve`.")


@click.group(short_help="Make, list and revoke API keys.")
def keys() -> None:
    """API keys for `influencerai serve --auth production`. Only their hashes are stored."""


@keys.command(
    short_help="Make a key and show it, once.",
    epilog="""\b
Examples:
  influencerai keys create --tenant studio --name laptop
  influencerai keys create --tenant studio --scope read --expires 30d
  influencerai keys create --worker
  influencerai keys create --metrics --name prometheus
  influencerai keys create --admin --expires 12h""",
)
@click.option("--tenant", help="Tenant that the key is for.")
@click.option(
    "--scope",
    type=click.Choice(["full", "read", "worker", "metrics", "admin"]),
    help="full: all of the tenant's things; read: the same without changes; worker: reports on jobs; metrics: "
    "/metrics alone; admin: /admin and /metrics.  [default: full]",
)
@click.option("--worker", is_flag=True, help="As --scope worker; without --tenant it names one with each request.")
@click.option("--metrics", is_flag=True, help="As --scope metrics.")
@click.option("--admin", is_flag=True, help="As --scope admin.")
@click.option("--expires", type=DURATION, metavar="DURATION", help="The key expires after 30d, 12h, 8w or 1y.")
@database_url_option
@_root_option
@click.option("--name", default="", help="What to remember the key by.")
@output_options
def create(
    *,
    tenant: str | None,
    scope: KeyScope | None,
    worker: bool,
    metrics: bool,
    admin: bool,
    expires: timedelta | None,
    name: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a key. Its secret is shown this once and cannot be shown again."""
    flags: dict[KeyScope, bool] = {"worker": worker, "metrics": metrics, "admin": admin}
    named = [flag for flag, is_set in flags.items() if is_set]
    if len(named) + (scope is not None) > 1:
        raise click.UsageError("Name one scope: --scope, --worker, --metrics or --admin.")
    chosen = named[0] if named else scope
    if tenant is None and chosen in (None, "full", "read"):
        raise click.UsageError("Name the --tenant that the key is for, or use --worker, --metrics or --admin.")
    key, secret = _run(lambda service: service.create(tenant=tenant, scope=chosen, name=name, lifetime=expires), given)
    if as_json:
        print_result({**_document(key), "key": secret})
        return
    click.echo(secret)
    until = "It does not expire." if key.expires_at is None else f"It expires on {moment(key.expires_at)}."
    click.echo(f"For {_owner(key)}, scope {key.scope}. {until} Keep it now: it is not shown again.", err=True)


@keys.command(
    "list",
    short_help="List keys without their secrets.",
    epilog="""\b
Example:
  influencerai keys list --tenant studio""",
)
@click.option("--tenant", help="Only keys of this tenant.")
@database_url_option
@_root_option
@output_options
def list_(*, tenant: str | None, as_json: bool, **given: Any) -> None:
    """List keys, revoked and expired ones too."""
    from rich.markup import escape
    from rich.table import Table

    found = _run(lambda service: service.list(tenant=tenant), given)
    if as_json:
        print_result({"keys": [_document(key) for key in found]})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("key", "scope", "tenant", "state", "made", "expires", "last used"):
        table.add_column(title, no_wrap=True)
    table.add_column("name", overflow="fold")
    for key in found:
        expires = "never" if key.expires_at is None else f"{key.expires_at.astimezone():%Y-%m-%d}"
        used = "never" if key.used_at is None else f"{age(key.used_at)} ago"
        cells = (f"{key.prefix}...", key.scope, key.tenant_id or "-", key.state)
        times = (f"{key.created_at.astimezone():%Y-%m-%d}", expires, used)
        table.add_row(*(escape(visible(cell)) for cell in (*cells, *times, key.name)))
    standard_output().print(table)


@keys.command(
    short_help="Revoke a key.",
    epilog="""\b
Examples:
  influencerai keys revoke 01a206ae-4e40-7536-9936-a9df81e09aa6
  influencerai keys revoke iak_c0gTZpKW""",
)
@click.argument("key")
@database_url_option
@_root_option
@output_options
def revoke(*, key: str, as_json: bool, **given: Any) -> None:
    """Revoke the KEY with this id, or whose secret begins so; servers notice within seconds."""
    revoked = _run(lambda service: service.revoke(key), given)
    if as_json:
        print_result(_document(revoked))
    else:
        click.echo(f"The key {revoked.prefix}... of {_owner(revoked)} is revoked.")


def _run(action: Callable[[KeyService], Awaitable[Result]], given: Mapping[str, Any]) -> Result:
    from influencerai.service.keys import KeyService
    from influencerai.store import Store

    settings = Settings.load(**given)

    async def run() -> Result:
        store = Store(settings.database_url)
        try:
            await store.database.check()
            return await action(KeyService(store))
        finally:
            await store.database.close()

    return asyncio.run(run())


def _owner(key: ApiKey) -> str:
    if key.tenant_id is not None:
        return f"tenant {key.tenant_id}"
    return {"worker": "a worker", "metrics": "monitoring", "admin": "an administrator"}[key.scope]


def _document(key: ApiKey) -> dict[str, Any]:
    times = {"createdAt": key.created_at, "expiresAt": key.expires_at, "usedAt": key.used_at}
    return {
        "id": key.id,
        "tenantId": key.tenant_id,
        "scope": key.scope,
        "name": key.name,
        "prefix": key.prefix,
        "state": key.state,
        **{
            name: None if time is None else time.isoformat()
            for name, time in {**times, "revokedAt": key.revoked_at}.items()
        },
    }
