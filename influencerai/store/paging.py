"""A slice of a sorted list; ties are broken by the id, in the same direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.page import PageQuery


async def page_of(
    connection: AsyncConnection,
    statement: Select[Any],
    query: PageQuery,
    *,
    sort: ColumnElement[Any],
    id: ColumnElement[Any],
) -> Sequence[Row[Any]]:
    """The rows of `statement` that `query` asks for."""
    order = (sort.desc(), id.desc()) if query.sort_order == "desc" else (sort.asc(), id.asc())
    rows: Sequence[Row[Any]] = (
        await connection.execute(statement.order_by(*order).limit(query.take).offset(query.skip))
    ).all()
    return rows
