"""`influencerai db`: the schema of the database."""

from __future__ import annotations

import asyncio

import click

from influencerai.cli.common import database_url_option, output_options
from influencerai.cli.outcome import print_result
from influencerai.settings import Settings


@click.group(short_help="Upgrade or check the database of the server.")
def db() -> None:
    """The database of the server: INFLUENCERAI_DATABASE_URL, by default a SQLite file in the root."""


@db.command(
    short_help="Bring the schema to this version.",
    epilog="""\b
Example:
  influencerai db upgrade --database-url postgresql://me@localhost/influencerai""",
)
@database_url_option
@output_options
def upgrade(*, database_url: str | None, as_json: bool) -> None:
    """Bring the database's schema to this version; there is no way back but a backup."""
    from influencerai.store import Store

    settings = Settings.load(database_url=database_url)

    async def run() -> tuple[str | None, str | None]:
        store = Store(settings.database_url)
        try:
            return await store.database.upgrade()
        finally:
            await store.database.close()

    before, after = asyncio.run(run())
    if as_json:
        print_result({"before": before, "after": after})
    elif before == after:
        click.echo(f"The schema is of this version already ({after}).")
    else:
        click.echo(f"The schema was brought from {before or 'nothing'} to {after}.")


@db.command(
    short_help="Say whether the schema is of this version.",
    epilog="""\b
Example:
  influencerai db check""",
)
@database_url_option
@output_options
def check(*, database_url: str | None, as_json: bool) -> None:
    """Say whether the database answers and its schema is of this version."""
    from influencerai.store import Store

    settings = Settings.load(database_url=database_url)

    async def run() -> None:
        store = Store(settings.database_url)
        try:
            await store.database.check(make=False)
        finally:
            await store.database.close()

    asyncio.run(run())
    if as_json:
        print_result({"ok": True})
    else:
        click.echo("The database answers, and its schema is of this version.")
