"""`influencerai keys`: API keys for the server in production."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from influencerai.cli.common import database_url_option, output_options, standard_output
from influencerai.cli.outcome import print_result
from influencerai.settings import Settings

if TYPE_CHECKING:
    from influencerai.service.keys import KeyService
    from influencerai.store.api_keys import ApiKey

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
  influencerai keys create --worker""",
)
@click.option("--tenant", help="Tenant that the key is for.")
@database_url_option
@_root_option
@click.option("--worker", is_flag=True, help="For a worker, which names its tenant with each request.")
@click.option("--name", default="", help="What to remember the key by.")
@output_options
def create(*, tenant: str | None, worker: bool, name: str, as_json: bool, **given: Any) -> None:
    """Make a key. Its secret is shown this once and is never to be had again."""
    if (tenant is None) == (not worker):
        raise click.UsageError("Name either --tenant or --worker.")
    key, secret = _run(lambda service: service.create(tenant=tenant, name=name), given)
    if as_json:
        print_result({**_document(key), "key": secret})
        return
    click.echo(secret)
    click.echo(f"For {_owner(key)}. Keep it now: it is not shown again.", err=True)


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
    """List keys, revoked ones too."""
    from rich.table import Table

    found = _run(lambda service: service.list(tenant=tenant), given)
    if as_json:
        print_result({"keys": [_document(key) for key in found]})
        return
    table = Table("Id", "Key", "For", "Name", "Made", "Revoked")
    for key in found:
        revoked = "" if key.revoked_at is None else f"{key.revoked_at:%Y-%m-%d %H:%M}"
        table.add_row(key.id, f"{key.prefix}...", _owner(key), key.name, f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
    standard_output().print(table)


@keys.command(
    short_help="Make a key useless.",
    epilog="""\b
Example:
  influencerai keys revoke 01a206ae-4e40-7536-9936-a9df81e09aa6""",
)
@click.argument("id")
@database_url_option
@_root_option
@output_options
def revoke(*, id: str, as_json: bool, **given: Any) -> None:
    """Make the key with this ID useless; servers notice within seconds."""
    key = _run(lambda service: service.revoke(id), given)
    if as_json:
        print_result(_document(key))
    else:
        click.echo(f"The key {key.prefix}... of {_owner(key)} is revoked.")


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
    return "a worker" if key.tenant_id is None else f"tenant {key.tenant_id}"


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenantId": key.tenant_id,
        "scope": key.scope,
        "name": key.name,
        "prefix": key.prefix,
        "createdAt": key.created_at.isoformat(),
        "revokedAt": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }
