"""Users: the active jobs that keep a dataset or a config from being deleted."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.errors import InUseError
from influencerai.store.schema import jobs


async def refuse_used(connection: AsyncConnection, uses: ColumnElement[bool]) -> None:
    """Called with the row locked that is to be deleted, so that no job can begin to use it.

    Raises:
        InUseError: jobs for which `uses` holds are active.
    """
    users = (await connection.execute(select(func.count()).select_from(jobs).where(uses))).scalar_one()
    if users:
        raise InUseError(jobs=users)
