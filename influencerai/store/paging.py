"""A slice of a sorted list; ties are broken by the id, in the same direction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from influencerai.domain.page import PageQuery

T = TypeVar("T")
_ROWS_AT_ONCE = 5
"""A row takes about 0.1 ms, in which nobody else is served."""


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


async def converted(rows: Sequence[Row[Any]], convert: Callable[[Row[Any]], T]) -> tuple[T, ...]:
    """Each row as `convert` returns it; other requests go on between some rows and the next."""
    found: list[T] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        found += map(convert, rows[start : start + _ROWS_AT_ONCE])
        await asyncio.sleep(0)
    return tuple(found)
